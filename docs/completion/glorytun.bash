# Completion of glorytun(8) and glorytun-setup(8) for bash.
# shellcheck shell=bash

_glorytun() {
    local cur words cword line file
    # An address may hold colons, which are no ends of words here.
    _get_comp_words_by_ref -n : cur words cword || return
    while IFS= read -r line; do
        if [[ $line == / ]]; then
            compopt -o filenames
            while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur")
        elif [[ $line == "$cur"* ]]; then
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <(/usr/share/glorytun/complete "${words[@]:0:cword}" "$cur" 2> /dev/null)
    __ltrim_colon_completions "$cur"
}

complete -F _glorytun glorytun

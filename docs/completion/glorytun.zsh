#compdef glorytun glorytun-setup
# Completion of glorytun(8) and glorytun-setup(8) for zsh.

local line files=1
local -a found

for line in ${(f)"$(/usr/share/glorytun/complete "${(@)words[1,CURRENT]}" 2> /dev/null)"}; do
    if [[ $line == / ]]; then
        _files && files=0
    else
        found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    fi
done
(( $#found )) && _describe word found || return files

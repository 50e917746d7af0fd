# Completion of glorytun(8) and glorytun-setup(8) for fish.

function __glorytun_complete
    for line in (/usr/share/glorytun/complete (commandline -opc) (commandline -ct) 2> /dev/null)
        if test "$line" = /
            # The name of a file may be behind an option and =.
            set -l option (string match --regex '^--[^=]*=' -- (commandline -ct))
            set -l file (string replace --regex '^--[^=]*=' '' -- (commandline -ct))
            for path in (__fish_complete_path "$file")
                echo "$option"$path
            end
        else
            echo $line
        end
    end
end

complete -c glorytun -f -a '(__glorytun_complete)'
complete -c glorytun-setup -f -a '(__glorytun_complete)'

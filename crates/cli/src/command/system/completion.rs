//! `completion`: scripts that let a shell ask `cata` itself what can come next.

use clap::Args;

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Completion {
    #[arg(required = true, value_name = "SHELL")]
    shell: String,
}

impl Verb for Completion {
    fn call(self, _: &Session) -> Outcome {
        let script = match self.shell.as_str() {
            "bash" => BASH,
            "zsh" => ZSH,
            "fish" => FISH,
            other => {
                return Err(Failure::usage(format!(
                    "no completion for shell '{other}': use bash, zsh or fish"
                )));
            }
        };
        session::print(script)?;
        Ok(Exit::OK)
    }
}

/// Readline replaces only what stands behind the last colon or equals sign; where nothing is offered, file names
/// are.
const BASH: &str = r#"# bash completion for cata
_cata() {
    local line=${COMP_LINE:0:COMP_POINT} word prefix
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    mapfile -t COMPREPLY < <("${words[0]}" __complete "${words[@]:1}" 2> /dev/null)
    COMPREPLY=("${COMPREPLY[@]%%$'\t'*}")
    if [[ $word == *[:=]* && $COMP_WORDBREAKS == *:* ]]; then
        prefix=${word%"${word##*[:=]}"}
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
}
complete -o default -F _cata cata
"#;

const ZSH: &str = r#"#compdef cata
_cata() {
    local line word about
    local -a candidates
    while IFS= read -r line; do
        word=${line%%$'\t'*} about=${line#*$'\t'}
        word=${word//:/\\:}
        candidates+=("${word}${about:+:$about}")
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2> /dev/null)
    if (( $#candidates )); then
        _describe cata candidates
    else
        _files
    fi
}
(( $+functions[compdef] )) && compdef _cata cata
"#;

const FISH: &str = r"# fish completion for cata
function __cata_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] __complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        string join \n -- $found
    else
        __fish_complete_path $words[-1]
    end
end
complete -c cata -f -a '(__cata_complete)'
";

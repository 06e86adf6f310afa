//! Completion scripts, made from the table.
//!
//! bash and zsh share one function, which goes over the words before the cursor
//! and says what may stand there; each has a small part that shows it in its
//! own way. fish is told each flag and word with the condition under which it
//! may stand.

use super::{
    Flag, GLOBAL, Hint, Operands, SUBCOMMANDS, Subcommand, Takes, first_words, names_after,
};
use std::fmt::Write;

/// The shells that there are scripts for.
pub const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// Where the names of `get` begin.
const ROOTS: &str = "settings. os. services. configuration-files.";

/// The script for a shell.
pub fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(format!("{}{}{BASH}", header(""), decide())),
        "zsh" => Some(format!(
            "{}{}{ZSH}",
            header("#compdef apiclient\n"),
            decide()
        )),
        "fish" => Some(fish()),
        _ => None,
    }
}

fn header(first: &str) -> String {
    format!("{first}# Completion of apiclient's command lines; from `apiclient completions`.\n\n")
}

fn shown() -> impl Iterator<Item = &'static Subcommand> {
    SUBCOMMANDS
        .iter()
        .copied()
        .filter(|subcommand| !subcommand.hidden)
}

/// Subcommands under the name that the scripts know them by: `raw` may be left
/// out.
fn named() -> impl Iterator<Item = (&'static str, &'static Subcommand)> {
    let raw = shown().filter(|subcommand| subcommand.name == "raw");
    raw.map(|raw| ("", raw))
        .chain(shown().map(|subcommand| (subcommand.name, subcommand)))
}

fn each_name(command: &str, flags: &[Flag], which: fn(&Takes) -> bool) -> Vec<String> {
    let flags = flags.iter().filter(|flag| which(&flag.takes));
    let names = flags.flat_map(|flag| flag.names);
    names.map(|name| format!("\"{command}:{name}\"")).collect()
}

/// The function that bash and zsh share.
fn decide() -> String {
    let one = |takes: &Takes| matches!(takes, Takes::One(_));
    let many = |takes: &Takes| matches!(takes, Takes::Many(_));
    // A name in quotes is taken as it is; the star of the global ones is not.
    let global = GLOBAL.iter().filter(|flag| one(&flag.takes));
    let global = global.flat_map(|flag| flag.names);
    let mut ones: Vec<String> = global.map(|name| format!("*\":{name}\"")).collect();
    let mut manys = Vec::new();
    for (name, subcommand) in named() {
        ones.extend(each_name(name, subcommand.flags, one));
        manys.extend(each_name(name, subcommand.flags, many));
    }
    let pairs: Vec<String> = shown()
        .filter(|subcommand| subcommand.words().1.is_some())
        .map(|subcommand| format!("\"{}\"", subcommand.name))
        .collect();
    let mut cases = String::new();
    for flag in GLOBAL {
        if let Takes::One(word) = flag.takes {
            let names: Vec<String> = flag.names.iter().map(|n| format!("*\":{n}:\"*")).collect();
            case(&mut cases, &names.join("|"), word.hint, "");
        }
    }
    for (name, subcommand) in named() {
        for flag in subcommand.flags {
            if let Takes::One(word) | Takes::Many(word) = flag.takes {
                let names: Vec<String> = flag
                    .names
                    .iter()
                    .map(|flag| format!("\"{name}:{flag}:\"*"))
                    .collect();
                case(&mut cases, &names.join("|"), word.hint, "");
            }
        }
    }
    let _ = writeln!(
        cases,
        "        \"::0\") kind=words list=\"{}\" ;;",
        first_words().join(" ")
    );
    for first in first_words() {
        let seconds = names_after(first).join(" ");
        match shown().find(|subcommand| subcommand.name == first) {
            Some(subcommand) => {
                let (pattern, hint) = match subcommand.operands {
                    Operands::None => continue,
                    Operands::One(hint) | Operands::ThenVerbatim(hint) => {
                        (format!("\"{first}::0\""), hint)
                    }
                    Operands::Many(hint) => (format!("\"{first}::\"*"), hint),
                };
                case(&mut cases, &pattern, hint, &seconds);
            }
            None => {
                let _ = writeln!(
                    cases,
                    "        \"{first}::0\") kind=words list=\"{seconds}\" ;;"
                );
            }
        }
    }
    for subcommand in shown().filter(|subcommand| subcommand.words().1.is_some()) {
        let name = subcommand.name;
        if let Operands::One(hint) | Operands::Many(hint) = subcommand.operands {
            case(&mut cases, &format!("\"{name}::\"*"), hint, "");
        }
    }
    let mut flags = String::new();
    for (name, subcommand) in named() {
        if !subcommand.flags.is_empty() {
            let names: Vec<&str> = subcommand
                .flags
                .iter()
                .flat_map(|f| f.names)
                .copied()
                .collect();
            let names = names.join(" ");
            let _ = writeln!(flags, "        \"{name}\") flags=\"$flags {names}\" ;;");
        }
    }
    let global: Vec<&str> = GLOBAL.iter().flat_map(|flag| flag.names).copied().collect();
    format!(
        r#"# Goes over the words before the one that is completed. Sets kind and list to
# what may stand there, and flags to the flags that may.
_apiclient_decide() {{
    local word first="" command="" value_of="" waiting="" operands=0
    for word in "$@"; do
        if [ -n "$waiting" ]; then
            waiting="" value_of=""
            continue
        fi
        case "$command:$word" in
            {ones}) waiting=1 value_of=$word; continue ;;
            {manys}) value_of=$word; continue ;;
            *":-"*) value_of=""; continue ;;
        esac
        if [ -n "$value_of" ]; then
            continue
        fi
        if [ -z "$first" ]; then
            first=$word command=$word
            continue
        fi
        case "$operands:$first $word" in
            {pairs}) command="$first $word" ;;
            *) operands=$((operands + 1)) ;;
        esac
    done
    kind="" list="" flags="{global}"
    case "$command:$value_of:$operands" in
{cases}    esac
    case "$command" in
{flags}    esac
    if [ -n "$waiting" ]; then
        flags=""
    fi
}}

"#,
        ones = ones.join("|"),
        manys = manys.join("|"),
        pairs = pairs
            .iter()
            .map(|pair| format!("\"0:{}", &pair[1..]))
            .collect::<Vec<_>>()
            .join("|"),
        global = global.join(" "),
    )
}

/// A line of a `case` that says what may stand somewhere, besides some words.
fn case(cases: &mut String, pattern: &str, hint: Hint, besides: &str) {
    let (kind, list) = match hint {
        Hint::Any => return,
        Hint::Key => ("keys", String::new()),
        Hint::Assignment => ("assignments", String::new()),
        Hint::Prefix => ("prefixes", ROOTS.to_string()),
        Hint::File => ("files", String::new()),
        Hint::Choice(words) => ("words", words.join(" ")),
    };
    let list = match (besides, list.as_str()) {
        ("", list) => list.to_string(),
        (besides, list) => format!("{besides} {list}"),
    };
    let _ = writeln!(cases, "        {pattern}) kind={kind} list=\"{list}\" ;;");
}

const BASH: &str = r#"_apiclient() {
    local cur=${COMP_WORDS[COMP_CWORD]} kind list flags
    _apiclient_decide "${COMP_WORDS[@]:1:COMP_CWORD-1}"
    COMPREPLY=()
    case "$kind:$cur" in
        keys:*|prefixes:settings.*) list+=" $(apiclient complete-key "$cur" 2>/dev/null)" ;;
        assignments:*)
            list=$(apiclient complete-key "$cur" 2>/dev/null)
            list=${list//$'\n'/= }${list:+=}
            ;;
    esac
    case "$kind:$cur" in
        *:-*) [ -z "$flags" ] || list=$flags ;;
        files:*) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        assignments:*|prefixes:*) compopt -o nospace ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$list" -- "$cur")
}

complete -F _apiclient apiclient
"#;

const ZSH: &str = r#"_apiclient() {
    local cur=${words[CURRENT]} kind list flags
    _apiclient_decide "${(@)words[2,CURRENT-1]}"
    case "$kind:$cur" in
        *:-*) [[ -z "$flags" ]] || { compadd -- ${=flags}; return } ;;
    esac
    case "$kind:$cur" in
        files:*) _files ;;
        keys:*) compadd -- ${=list} ${(f)"$(apiclient complete-key "$cur" 2>/dev/null)"} ;;
        prefixes:settings.*)
            compadd -S '' -- ${=list} ${(f)"$(apiclient complete-key "$cur" 2>/dev/null)"} ;;
        prefixes:*) compadd -S '' -- ${=list} ;;
        assignments:*) compadd -S = -- ${(f)"$(apiclient complete-key "$cur" 2>/dev/null)"} ;;
        *) compadd -- ${=list} ;;
    esac
}

if [[ $funcstack[1] = _apiclient ]]; then
    _apiclient "$@"
else
    compdef _apiclient apiclient
fi
"#;

fn fish() -> String {
    let mut script = header("");
    let global = |takes_one: bool| {
        let flags = GLOBAL
            .iter()
            .filter(move |flag| takes_one == matches!(flag.takes, Takes::One(_)));
        let names: Vec<&str> = flags.flat_map(|flag| flag.names).copied().collect();
        names.join(" ")
    };
    let groups: Vec<&str> = first_words()
        .into_iter()
        .filter(|first| !names_after(first).is_empty())
        .collect();
    let pairs: Vec<String> = shown()
        .filter(|subcommand| subcommand.words().1.is_some())
        .map(|subcommand| quoted(subcommand.name))
        .collect();
    let _ = write!(
        script,
        r#"# Whether the words before the cursor begin with these subcommands.
function __apiclient_at
    set -l found
    set -l skip
    for word in (commandline -opc)[2..]
        if test -n "$skip"
            set skip
        else if contains -- $word {values}
            set skip 1
        else if contains -- $word {switches}
            continue
        else if string match -q -- '-*' $word
            test -n "$found"; or set found raw
            break
        else if test -z "$found"
            set found $word
            contains -- $word {groups}; or break
        else
            contains -- "$found $word" {pairs}; and set found $found $word
            break
        end
    end
    test "$found" = "$argv"
end

# Whether one of these is the last flag before the cursor.
function __apiclient_after
    set -l flags (commandline -opc | string match -- '-*')
    contains -- "$flags[-1]" $argv
end

complete -c apiclient -f
"#,
        values = global(true),
        switches = global(false),
        pairs = pairs.join(" "),
        groups = groups.join(" "),
    );
    for flag in GLOBAL {
        fish_flag(&mut script, "", flag);
    }
    for first in first_words() {
        let alone = shown().find(|subcommand| subcommand.name == first);
        let summary = alone.map_or_else(
            || names_after(first).join(", "),
            |subcommand| subcommand.summary.to_string(),
        );
        let _ = writeln!(
            script,
            "complete -c apiclient -n \"__apiclient_at\" -a {first} -d {}",
            quoted(&summary)
        );
    }
    for subcommand in shown() {
        let name = subcommand.name;
        let at = match name {
            // It may be left out.
            "raw" => " -n \"__apiclient_at raw; or __apiclient_at\"".to_string(),
            _ => format!(" -n \"__apiclient_at {name}\""),
        };
        if let (first, Some(second)) = subcommand.words() {
            let _ = writeln!(
                script,
                "complete -c apiclient -n \"__apiclient_at {first}\" -a {second} -d {}",
                quoted(subcommand.summary)
            );
        }
        for flag in subcommand.flags {
            fish_flag(&mut script, &at, flag);
            if let Takes::Many(word) = flag.takes
                && let Some(words) = fish_words(word.hint)
            {
                let names = flag.names.join(" ");
                let _ = writeln!(
                    script,
                    "complete -c apiclient -n \"__apiclient_at {name}; and __apiclient_after \
                     {names}\" {words}"
                );
            }
        }
        let hint = match subcommand.operands {
            Operands::None => Hint::Any,
            Operands::One(hint) | Operands::Many(hint) | Operands::ThenVerbatim(hint) => hint,
        };
        if let Some(words) = fish_words(hint) {
            let _ = writeln!(script, "complete -c apiclient{at} {words}");
        }
    }
    script
}

fn fish_flag(script: &mut String, at: &str, flag: &Flag) {
    let _ = write!(script, "complete -c apiclient{at}");
    for name in flag.names {
        let _ = match name.strip_prefix("--") {
            Some(long) => write!(script, " -l {long}"),
            None => write!(script, " -s {}", &name[1..]),
        };
    }
    if let Takes::One(word) | Takes::Many(word) = flag.takes {
        script.push_str(if word.hint == Hint::File {
            " -r"
        } else {
            " -x"
        });
        if let Some(words) = fish_words(word.hint) {
            let _ = write!(script, " {words}");
        }
    }
    let _ = writeln!(script, " -d {}", quoted(flag.help));
}

fn fish_words(hint: Hint) -> Option<String> {
    let ask = "(apiclient complete-key (commandline -ct) 2>/dev/null)";
    match hint {
        Hint::Any => None,
        Hint::Key => Some(format!("-a '{ask}'")),
        Hint::Assignment => Some(format!("-a '{ask}='")),
        Hint::Prefix => Some(format!(
            "-a '{ROOTS} {} | string match \"settings.*\")'",
            ask.trim_end_matches(')')
        )),
        Hint::File => Some("-F".to_string()),
        Hint::Choice(words) => Some(format!("-a '{}'", words.join(" "))),
    }
}

/// A text in single quotes, as fish reads it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

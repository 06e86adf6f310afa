//! Writes the fields that a Go struct has in its JSON or TOML form, one a line with
//! its type: the tables in `src/groups/upstream` are made with it.
//!
//! ```text
//! cargo run -p settings --example fields-of-go -- json KubeletConfiguration '' \
//!     MODULES/k8s.io/kubelet@v0.36.3/config/v1beta1/types.go \
//!     MODULES/k8s.io/component-base@v0.36.3/logs/api/v1/types.go \
//!     MODULES/k8s.io/component-base@v0.36.3/tracing/api/v1/types.go
//! ```
//!
//! The arguments are the name of the tag, the struct, the key that it lies at, and the
//! files that declare it and the types it uses. `MODULES` is the folder that
//! `go mod download` fills. What a file declares is known by its name without the
//! package's; types that no file declares are written as `any`.

#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use settings::Key;
use std::collections::BTreeMap;

/// What the files declare.
#[derive(Default)]
struct Types {
    structs: BTreeMap<String, Vec<Field>>,
    others: BTreeMap<String, String>,
}

struct Field {
    /// Its type in Go.
    kind: String,
    /// Its name in the document; none if its own fields stand in its place.
    name: Option<String>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tag, root, at, files @ ..] = arguments.as_slice() else {
        eprintln!("usage: fields-of-go TAG STRUCT KEY FILE…");
        std::process::exit(2);
    };
    let mut types = Types::default();
    for file in files {
        types.read(&std::fs::read_to_string(file).expect(file), tag);
    }
    assert!(types.structs.contains_key(root), "no file declares {root}");
    let mut at: Key = match at.as_str() {
        "" => Key::root(),
        at => at.parse().unwrap(),
    };
    types.write_struct(root, &mut at);
}

impl Types {
    /// Notes the declarations of a file.
    fn read(&mut self, text: &str, tag: &str) {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(declared) = line.strip_prefix("type ") else {
                continue;
            };
            let Some((name, kind)) = declared.split_once(' ') else {
                continue;
            };
            if kind.trim() != "struct {" {
                self.others
                    .insert(name.to_string(), kind.trim().to_string());
                continue;
            }
            let body = lines.by_ref().take_while(|line| *line != "}");
            let fields = body.filter_map(|line| field(line, tag)).collect();
            self.structs.insert(name.to_string(), fields);
        }
    }

    fn write_struct(&self, name: &str, at: &mut Key) {
        for field in &self.structs[name] {
            match &field.name {
                Some(name) => {
                    at.push(name);
                    self.write(&field.kind, at);
                    at.pop();
                }
                None => {
                    let kind = plain(&field.kind);
                    if self.structs.contains_key(kind) {
                        self.write_struct(kind, at);
                    }
                }
            }
        }
    }

    /// Writes what lies at `at`: a line, or those of the struct's fields.
    fn write(&self, kind: &str, at: &mut Key) {
        let (outer, inner) = match kind.trim_start_matches('*') {
            kind if kind.starts_with("[]") => ("[]", &kind[2..]),
            kind if kind.starts_with("map[string]") => ("<name>", &kind[11..]),
            kind => ("", kind),
        };
        let inner = plain(inner);
        let alias = self.others.get(inner).map(String::as_str);
        if outer.is_empty()
            && let Some(alias) = alias
        {
            return self.write(alias, at);
        }
        if self.structs.contains_key(inner) && known(inner).is_none() {
            if !outer.is_empty() {
                at.push(outer);
            }
            self.write_struct(inner, at);
            if !outer.is_empty() {
                at.pop();
            }
            return;
        }
        let inner = alias.unwrap_or(inner);
        let word = if inner.starts_with("[]") || inner.starts_with("map[") {
            format!("list of {}", known(plain(&inner[2..])).unwrap_or("any"))
        } else {
            known(plain(inner)).unwrap_or("any").to_string()
        };
        match outer {
            "[]" => println!("{}\tlist of {word}", path(at)),
            "<name>" => println!("{}\ttable of {word}", path(at)),
            _ => println!("{}\t{word}", path(at)),
        }
    }
}

/// A key as the tables have it: parts with a dot in them are quoted.
fn path(at: &Key) -> String {
    let quoted = |part: &String| match part.contains('.') {
        true => format!("\"{part}\""),
        false => part.clone(),
    };
    at.parts().iter().map(quoted).collect::<Vec<_>>().join(".")
}

/// A field of a struct, from its line.
fn field(line: &str, tag: &str) -> Option<Field> {
    let line = line.trim();
    if line.starts_with("//") {
        return None;
    }
    let (declared, tags) = line.split_once('`')?;
    let mark = format!("{tag}:\"");
    let value = tags.split_once(&mark)?.1.split_once('"')?.0;
    let name = value.split(',').next()?;
    if name == "-" {
        return None;
    }
    let kind = declared.split_whitespace().last()?.to_string();
    let name = (!name.is_empty()).then(|| name.to_string());
    Some(Field { kind, name })
}

/// A type's name without its package and pointer.
fn plain(kind: &str) -> &str {
    let kind = kind.trim_start_matches('*');
    match kind.rsplit_once('.') {
        Some((_, name)) if !kind.contains('[') => name,
        _ => kind,
    }
}

/// The word for a type that has one in the tables.
fn known(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "bool" => "boolean",
        "string" => "text",
        "int" | "int64" => "int64",
        "int32" => "int32",
        "uint32" => "uint32",
        "float64" => "number",
        "Duration" | "TimeOrMetaDuration" => "duration",
        "QuantityValue" | "Quantity" => "quantity",
        _ => return None,
    })
}

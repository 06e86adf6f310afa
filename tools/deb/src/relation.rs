//! Relations between packages (Debian Policy, section 7.1).

use crate::Error;
use crate::index::is_package_name;
use crate::version::Version;
use std::cmp::Ordering;
use std::fmt;

/// One alternative of a dependency: a package, perhaps of certain versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Package asked for, which may be a virtual one.
    pub name: String,
    /// Versions that will do; none named, any will.
    pub constraint: Option<Constraint>,
}

/// Which versions will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// How a version must relate to `version`.
    pub operator: Operator,
    /// What it is compared with.
    pub version: Version,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    const ALL: [(&'static str, Self); 7] = [
        ("<<", Self::Earlier),
        ("<=", Self::EarlierOrEqual),
        (">=", Self::LaterOrEqual),
        (">>", Self::Later),
        ("=", Self::Equal),
        // Old spellings, whose meaning is not what they look like.
        ("<", Self::EarlierOrEqual),
        (">", Self::LaterOrEqual),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, operator)| *operator == self)
            .map_or("", |(text, _)| text)
    }
}

impl Constraint {
    /// Whether `version` will do.
    pub fn allows(&self, version: &Version) -> bool {
        let order = version.cmp(&self.version);
        match self.operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }
}

impl Relation {
    /// Whether `version` of the package named will do.
    pub fn allows(&self, version: &Version) -> bool {
        self.constraint
            .as_ref()
            .is_none_or(|constraint| constraint.allows(version))
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.constraint {
            Some(Constraint { operator, version }) => {
                write!(f, " ({} {version})", operator.as_str())
            }
            None => Ok(()),
        }
    }
}

/// Reads a list of dependencies: each is met by any one of its alternatives.
///
/// Qualifiers of architecture (`python3:any`) are dropped, since all packages of
/// a tree are of one architecture here.
pub fn parse(text: &str) -> Result<Vec<Vec<Relation>>, Error> {
    text.split(',')
        .map(str::trim)
        .filter(|dependency| !dependency.is_empty())
        .map(|dependency| dependency.split('|').map(parse_one).collect())
        .collect()
}

fn parse_one(text: &str) -> Result<Relation, Error> {
    let malformed = |why: &str| Error::Malformed {
        what: "dependency",
        why: format!(
            "{:?} {why}",
            text.trim().chars().take(80).collect::<String>()
        ),
    };
    let (name, rest) = match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    // Restrictions by architecture and build profile only occur in sources.
    let name = name.trim();
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    if !is_package_name(name) {
        return Err(malformed("does not name a package"));
    }
    let constraint = match rest {
        None => None,
        Some(rest) => {
            let inside = rest
                .trim_end()
                .strip_suffix(')')
                .ok_or_else(|| malformed("has no closing bracket"))?
                .trim();
            let (operator, version) = Operator::ALL
                .iter()
                .find_map(|(sign, operator)| Some((*operator, inside.strip_prefix(sign)?)))
                .ok_or_else(|| malformed("has no comparison"))?;
            let version = version
                .trim()
                .parse()
                .map_err(|_| malformed("has no version"))?;
            Some(Constraint { operator, version })
        }
    };
    Ok(Relation {
        name: name.to_string(),
        constraint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies() {
        let check = |text: &str, expected: &[&[&str]]| {
            let found: Vec<Vec<String>> = parse(text)
                .unwrap()
                .iter()
                .map(|alternatives| alternatives.iter().map(Relation::to_string).collect())
                .collect();
            assert_eq!(found, expected, "{text:?}");
        };
        check("", &[]);
        check("libc6 (>= 2.38)", &[&["libc6 (>= 2.38)"]]);
        check(
            "a(<<1) , b|c (=2-1),",
            &[&["a (<< 1)"], &["b", "c (= 2-1)"]],
        );
        check("python3:any, x (> 1)", &[&["python3"], &["x (>= 1)"]]);
        check("\n a,\n b", &[&["a"], &["b"]]);
    }

    #[test]
    fn malformed_dependencies_are_refused() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error}");
        };
        check("A", "does not name a package");
        check("a b", "does not name a package");
        check("a |", "does not name a package");
        check("a (>= 1", "no closing bracket");
        check("a (1)", "no comparison");
        check("a (>= )", "no version");
        check("a (>= 1) b)", "no version");
    }

    #[test]
    fn constraints() {
        let check = |relation: &str, version: &str, expected: bool| {
            let relation = &parse(relation).unwrap()[0][0];
            assert_eq!(
                relation.allows(&version.parse().unwrap()),
                expected,
                "{relation} {version}"
            );
        };
        check("a", "1", true);
        check("a (<< 2)", "2~rc1", true);
        check("a (<< 2)", "2", false);
        check("a (<= 2)", "2", true);
        check("a (= 2)", "2-0", true);
        check("a (>= 2)", "1:1", true);
        check("a (>> 2)", "2", false);
    }
}

//! Which packages go together: closures of dependencies over the signed indexes.
//!
//! Packages are only unpacked, never installed, so what matters is that whatever
//! a package depends on is there in a version that fits. Conflicts and
//! recommendations are no concern.

use anyhow::{Context, Result, bail};
use deb::index::Package;
use deb::relation::{self, Relation};
use deb::version::Version;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

/// A package asked for: `name` or `name/suite`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Name of the package.
    pub name: String,
    /// Suite that it must come from, if it matters.
    pub suite: Option<String>,
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, suite) = match text.split_once('/') {
            Some((name, suite)) => (name, Some(suite.to_string())),
            None => (text, None),
        };
        if !deb::index::is_package_name(name) || suite.as_deref() == Some("") {
            bail!("{text:?} is not a package: write \"name\" or \"name/suite\"");
        }
        Ok(Self {
            name: name.to_string(),
            suite,
        })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.suite {
            Some(suite) => write!(f, "{}/{suite}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A package and the suite that offers it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The package.
    pub package: Package,
    /// Index of the suite in the universe.
    suite: usize,
}

/// Everything that the suites offer for one architecture.
#[derive(Debug, Default)]
pub struct Universe {
    suites: Vec<String>,
    offers: Vec<Offer>,
    by_name: HashMap<String, Vec<usize>>,
    /// Virtual package → who provides it, in which version if they say so.
    providers: HashMap<String, Vec<(usize, Option<Version>)>>,
}

impl Universe {
    /// Adds the packages of a suite, in any order.
    pub fn add_suite(
        &mut self,
        suite: &str,
        packages: impl IntoIterator<Item = Package>,
    ) -> Result<()> {
        let suite_index = self.suites.len();
        self.suites.push(suite.to_string());
        for package in packages {
            let index = self.offers.len();
            if !package.provides.is_empty() {
                let provided = relation::parse(&package.provides).with_context(|| {
                    format!("cannot read what {} in {suite} provides", package.name)
                })?;
                for Relation { name, constraint } in provided.into_iter().flatten() {
                    let version = constraint.map(|constraint| constraint.version);
                    self.providers
                        .entry(name)
                        .or_default()
                        .push((index, version));
                }
            }
            self.by_name
                .entry(package.name.clone())
                .or_default()
                .push(index);
            self.offers.push(Offer {
                package,
                suite: suite_index,
            });
        }
        Ok(())
    }

    /// Name of the suite that an offer is from.
    pub fn suite_of(&self, offer: &Offer) -> &str {
        &self.suites[offer.suite]
    }

    /// The best package for a request: from its suite if it names one, else the
    /// highest version of those suites that are not backports.
    pub fn find(&self, request: &Request) -> Option<&Offer> {
        self.find_where(request, |_| true)
    }

    /// Whether some package is called `name` or provides it.
    pub fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.providers.contains_key(name)
    }

    /// Names of packages that provide `relation`.
    pub fn provider_names(&self, relation: &Relation) -> BTreeSet<&str> {
        self.providers_of(relation)
            .map(|index| self.offers[index].package.name.as_str())
            .collect()
    }

    fn find_where(&self, request: &Request, allowed: impl Fn(&Version) -> bool) -> Option<&Offer> {
        let candidates = || {
            self.by_name
                .get(&request.name)
                .into_iter()
                .flatten()
                .map(|index| &self.offers[*index])
                .filter(|offer| allowed(&offer.package.version))
        };
        let best = |suites: &dyn Fn(&str) -> bool| {
            candidates()
                .filter(|offer| suites(self.suite_of(offer)))
                // Of equal versions the one from the suite named first.
                .max_by(|a, b| {
                    a.package
                        .version
                        .cmp(&b.package.version)
                        .then_with(|| b.suite.cmp(&a.suite))
                })
        };
        match &request.suite {
            Some(suite) => best(&|candidate| candidate == suite),
            None => best(&|candidate| !is_backports(candidate)),
        }
    }

    /// The best package that meets a dependency on a real package. Backports are
    /// taken only where nothing else does: what was asked for from there may
    /// need its own libraries.
    pub fn find_for(&self, relation: &Relation) -> Option<&Offer> {
        let request = Request {
            name: relation.name.clone(),
            suite: None,
        };
        self.find_where(&request, |version| relation.allows(version))
            .or_else(|| {
                self.suites
                    .iter()
                    .filter(|suite| is_backports(suite))
                    .find_map(|suite| {
                        let request = Request {
                            name: relation.name.clone(),
                            suite: Some(suite.clone()),
                        };
                        self.find_where(&request, |version| relation.allows(version))
                    })
            })
    }

    fn providers_of<'a>(&'a self, relation: &'a Relation) -> impl Iterator<Item = usize> + 'a {
        self.providers
            .get(&relation.name)
            .into_iter()
            .flatten()
            .filter(|(_, version)| match (&relation.constraint, version) {
                (None, _) => true,
                (Some(constraint), Some(version)) => constraint.allows(version),
                (Some(_), None) => false,
            })
            .map(|(index, _)| *index)
    }

    /// All that `requests` need, themselves included, sorted by name.
    pub fn closure(&self, requests: &[Request], exclude: &[String]) -> Result<Vec<&Offer>> {
        let mut pinned: BTreeMap<String, Request> = BTreeMap::new();
        for request in requests {
            pinned.insert(request.name.clone(), request.clone());
        }
        self.grow(
            requests.iter().map(|request| request.name.as_str()),
            pinned,
            exclude,
            |_, _| false,
        )
    }

    /// What `start` needs beyond what `is_met` says is there already.
    ///
    /// Packages in `pinned` are taken as requested there. `is_met` is given each
    /// dependency with the package that has it.
    pub fn grow<'a, 'n>(
        &'a self,
        start: impl Iterator<Item = &'n str>,
        pinned: BTreeMap<String, Request>,
        exclude: &[String],
        mut is_met: impl FnMut(&Package, &[Relation]) -> bool,
    ) -> Result<Vec<&'a Offer>> {
        let mut selected: BTreeMap<&str, &Offer> = BTreeMap::new();
        let mut queue: Vec<&Offer> = Vec::new();
        for name in start {
            let request = pinned.get(name).cloned().unwrap_or_else(|| Request {
                name: name.to_string(),
                suite: None,
            });
            let offer = self
                .find(&request)
                .with_context(|| format!("no suite that is locked offers the package {request}"))?;
            selected.insert(&offer.package.name, offer);
            queue.push(offer);
        }
        queue.reverse();
        while let Some(offer) = queue.pop() {
            for alternatives in dependencies(&offer.package)? {
                let excluded = alternatives
                    .iter()
                    .any(|relation| exclude.contains(&relation.name));
                if excluded || is_met(&offer.package, &alternatives) {
                    continue;
                }
                if alternatives
                    .iter()
                    .any(|relation| self.is_selected(relation, &selected))
                {
                    continue;
                }
                let chosen = alternatives
                    .iter()
                    .find_map(|relation| self.choose(relation, &selected, exclude))
                    .with_context(|| self.unmet(&offer.package, &alternatives, &selected))?;
                selected.insert(&chosen.package.name, chosen);
                queue.push(chosen);
            }
        }
        Ok(selected.into_values().collect())
    }

    fn is_selected(&self, relation: &Relation, selected: &BTreeMap<&str, &Offer>) -> bool {
        selected
            .get(relation.name.as_str())
            .is_some_and(|offer| relation.allows(&offer.package.version))
            || self.providers_of(relation).any(|index| {
                let provider = &self.offers[index].package;
                selected
                    .get(provider.name.as_str())
                    .is_some_and(|offer| offer.package.version == provider.version)
            })
    }

    /// A package for one alternative: a real one, or one that provides it. What
    /// is selected in another version cannot be.
    fn choose<'a>(
        &'a self,
        relation: &Relation,
        selected: &BTreeMap<&str, &Offer>,
        exclude: &[String],
    ) -> Option<&'a Offer> {
        let free = |offer: &&Offer| {
            !selected.contains_key(offer.package.name.as_str())
                && !exclude.contains(&offer.package.name)
        };
        self.find_for(relation).filter(free).or_else(|| {
            let names = self.provider_names(relation);
            names.into_iter().find_map(|name| {
                let best = self.find(&Request {
                    name: name.to_string(),
                    suite: None,
                })?;
                let provides = self
                    .providers_of(relation)
                    .any(|index| std::ptr::eq(&self.offers[index], best));
                Some(best).filter(|_| provides).filter(free)
            })
        })
    }

    fn unmet(
        &self,
        package: &Package,
        alternatives: &[Relation],
        selected: &BTreeMap<&str, &Offer>,
    ) -> String {
        let wanted: Vec<String> = alternatives.iter().map(Relation::to_string).collect();
        let there: Vec<String> = alternatives
            .iter()
            .filter_map(|relation| selected.get(relation.name.as_str()))
            .map(|offer| format!("{} is {}", offer.package.name, offer.package.version))
            .collect();
        let there = match there.is_empty() {
            true => "no suite that is locked offers it".to_string(),
            false => format!("but {}", there.join(", ")),
        };
        format!(
            "{} {} depends on {}: {there}",
            package.name,
            package.version,
            wanted.join(" | ")
        )
    }
}

/// What a package needs to work.
pub fn dependencies(package: &Package) -> Result<Vec<Vec<Relation>>> {
    let mut all = Vec::new();
    for list in [&package.pre_depends, &package.depends] {
        all.extend(relation::parse(list).with_context(|| {
            format!(
                "cannot read what {} {} depends on",
                package.name, package.version
            )
        })?);
    }
    Ok(all)
}

/// Whether a suite is only for what is asked for from it.
pub fn is_backports(suite: &str) -> bool {
    suite.ends_with("-backports")
}

#[cfg(test)]
mod tests;

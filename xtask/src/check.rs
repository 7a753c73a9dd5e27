//! The directions of dependency between the crates of this repository.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Which of our crates a crate may use directly. A crate that is not listed
/// here may not exist: whoever adds one decides where it stands.
const MAY_USE: &[(&str, &[&str])] = &[
    ("vimana-model", &[]),
    ("vimana-authz", &["vimana-model"]),
    ("vimana-placement", &["vimana-model", "vimana-protocol"]),
    ("vimana-ui", &[]),
    ("vimana-datastore", &["vimana-model"]),
    ("vimana-driver", &["vimana-model"]),
    ("vimana-driver-qemu", &["vimana-driver", "vimana-model"]),
    ("vimana-driver-sim", &["vimana-driver", "vimana-model"]),
    ("vimana-protocol", &["vimana-driver", "vimana-model"]),
    ("vimana-pki", &["vimana-model"]),
    ("vimana-convert", &[]),
    ("vimana-fetch", &[]),
    ("vimana-format", &[]),
    ("vimana-import", &["vimana-fetch", "vimana-format"]),
    (
        "vimana-repository",
        &[
            "vimana-fetch",
            "vimana-format",
            "vimana-import",
            "vimana-model",
        ],
    ),
    ("vimana-migrations", &["vimana-model"]),
    ("vimana-store", &["vimana-migrations", "vimana-model"]),
    (
        "vimana-engine",
        &[
            "vimana-authz",
            "vimana-datastore",
            "vimana-driver",
            "vimana-model",
            "vimana-pki",
            "vimana-placement",
            "vimana-protocol",
            "vimana-repository",
            "vimana-store",
        ],
    ),
    (
        "vimana-agent",
        &[
            "vimana-client",
            "vimana-driver",
            "vimana-driver-qemu",
            "vimana-driver-sim",
            "vimana-model",
            "vimana-pki",
            "vimana-protocol",
            "vimana-watchdog",
        ],
    ),
    ("vimana-watchdog", &[]),
    (
        "vimana-scheduler",
        &[
            "vimana-client",
            "vimana-model",
            "vimana-placement",
            "vimana-protocol",
        ],
    ),
    ("vimana-client", &["vimana-model", "vimana-protocol"]),
    ("vimana-cli", &["vimana-client", "vimana-model"]),
    (
        "vimana-app",
        &["vimana-authz", "vimana-engine", "vimana-model", "vimana-ui"],
    ),
    ("vimana-frontend", &["vimana-app"]),
    (
        "vimana-server",
        &[
            "vimana-app",
            "vimana-authz",
            "vimana-datastore",
            "vimana-driver",
            "vimana-engine",
            "vimana-model",
            "vimana-pki",
            "vimana-placement",
            "vimana-fetch",
            "vimana-protocol",
            "vimana-repository",
            "vimana-store",
        ],
    ),
    (
        "vimana-testkit",
        &[
            "vimana-agent",
            "vimana-authz",
            "vimana-datastore",
            "vimana-driver",
            "vimana-driver-sim",
            "vimana-engine",
            "vimana-model",
            "vimana-pki",
            "vimana-protocol",
            "vimana-repository",
            "vimana-scheduler",
            "vimana-store",
        ],
    ),
    (
        "vimana-load",
        &[
            "vimana-agent",
            "vimana-client",
            "vimana-driver",
            "vimana-driver-sim",
            "vimana-model",
            "vimana-protocol",
        ],
    ),
    ("xtask", &[]),
];

/// What must never reach the browser, by way of `app` with its `ssr` left out.
/// (regex is among what leptos itself names; the linker leaves it out.)
const NOT_IN_BROWSER: &[&str] = &["chrono", "reqwest", "tokio", "sea-orm", "vimana-engine"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev` where only tests use it; tests may use anything.
    kind: Option<String>,
    /// Only where a crate of this repository is meant.
    path: Option<String>,
}

pub fn run() -> Result<()> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata")?;
    let mut faults = directions(&metadata);
    faults.extend(browser_faults()?);
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!(
        "{} crates keep to their directions",
        metadata.packages.len()
    );
    Ok(())
}

fn directions(metadata: &Metadata) -> Vec<String> {
    let rules: BTreeMap<&str, BTreeSet<&str>> = MAY_USE
        .iter()
        .map(|(name, may)| (*name, may.iter().copied().collect()))
        .collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some(may) = rules.get(package.name.as_str()) else {
            faults.push(format!(
                "{}: not in the list of xtask/src/check.rs",
                package.name
            ));
            continue;
        };
        let used = package.dependencies.iter().filter(|dependency| {
            dependency.path.is_some() && dependency.kind.as_deref() != Some("dev")
        });
        for dependency in used.filter(|dependency| !may.contains(dependency.name.as_str())) {
            faults.push(format!("{} may not use {}", package.name, dependency.name));
        }
    }
    faults
}

fn browser_faults() -> Result<Vec<String>> {
    let tree = cargo(&[
        "tree",
        "--package",
        "vimana-frontend",
        "--target",
        "wasm32-unknown-unknown",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    let reached: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    Ok(NOT_IN_BROWSER
        .iter()
        .filter(|name| reached.contains(**name))
        .map(|name| format!("{name} reaches the browser"))
        .collect())
}

fn cargo(arguments: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn crates_keep_to_the_directions_of_dependency() {
        super::run().unwrap();
    }
}

//! One breach, planted by hand: that exactly it is found, and nothing else.

use vimana_engine::check::{Breach, Check, Outside, Source};

use crate::installation::Installation;

/// What is planted, and what is to be found.
pub struct Plant {
    pub check: Check,
    /// Kind and name of what is wrong; its id, where it has no name.
    subject: &'static str,
    /// `{name}` stands for the id of that.
    statements: &'static str,
    outside: fn(&mut Outside, &Installation),
}

impl Plant {
    /// In the database alone; nothing else is looked at.
    pub const fn records(check: Check, subject: &'static str, statements: &'static str) -> Self {
        Self {
            check,
            subject,
            statements,
            outside: |outside, _| *outside = Outside::default(),
        }
    }

    /// In what hosts or the datastore hold.
    pub const fn reports(
        check: Check,
        subject: &'static str,
        outside: fn(&mut Outside, &Installation),
    ) -> Self {
        Self {
            check,
            subject,
            statements: "",
            outside,
        }
    }

    /// In both.
    pub const fn both(
        check: Check,
        subject: &'static str,
        statements: &'static str,
        outside: fn(&mut Outside, &Installation),
    ) -> Self {
        Self {
            check,
            subject,
            statements,
            outside,
        }
    }
}

/// One plant in the database per line: the check, what it is wrong with, how.
macro_rules! records {
    ($($check:ident $subject:literal: $statements:literal;)+) => {
        &[$(Plant::records(Check::$check, $subject, $statements),)+]
    };
}
pub(crate) use records;

/// Plants every one by itself.
pub async fn prove(installation: &Installation, plants: &[&[Plant]]) {
    let mut wrong = Vec::new();
    for plant in plants.iter().copied().flatten() {
        let mut outside = installation.outside.clone();
        (plant.outside)(&mut outside, installation);
        let mut found = installation.breaches(plant.statements, &outside).await;
        // What a VM counts follows from its state and its operation: where those are
        // wrong, it is, too.
        if plant.check != Check::CountsAreOff {
            found.retain(|breach| breach.check != Check::CountsAreOff);
        }
        let expected = installation.filled(plant.subject, "");
        let hit = match found.as_slice() {
            [breach] => breach.check == plant.check && shown(breach) == expected,
            _ => false,
        };
        if !hit {
            let found: Vec<String> = found
                .iter()
                .map(|breach| format!("\n    {:?} of {breach}", breach.check))
                .collect();
            let (check, statements) = (plant.check, plant.statements);
            wrong.push(format!(
                "{check:?} of {expected}, planted by `{statements}`: found {}",
                found.concat()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No check of this source goes without a plant.
pub fn assert_complete(source: Source, plants: &[&[Plant]]) {
    let planted = |check: Check| plants.iter().copied().flatten().any(|p| p.check == check);
    let of_source = Check::ALL.iter().filter(|check| check.source() == source);
    let missing: Vec<&Check> = of_source.filter(|check| !planted(**check)).collect();
    assert!(missing.is_empty(), "never planted: {missing:?}");
}

fn shown(breach: &Breach) -> String {
    let subject = &breach.subject;
    let named = &subject.itself;
    let name = named.name.as_ref().unwrap_or(&named.id);
    format!("{} {name}", subject.kind.name())
}

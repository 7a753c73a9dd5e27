//! What a check found, for people and for programs.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;
use vimana_engine::check::{Breach, Check, Named, Rule, Subject};

/// The answer as a whole.
#[derive(Debug, Serialize)]
pub struct Report {
    /// No breach was found.
    pub clean: bool,
    /// Everything that was to be looked at could be.
    pub whole: bool,
    /// Absent where hosts were not to be asked.
    pub hosts: Option<Hosts>,
    /// What else could not be looked at, and why.
    pub unread: Vec<String>,
    pub breaches: Vec<Found>,
}

/// The hosts that were to be asked what they hold.
#[derive(Debug, Serialize)]
pub struct Hosts {
    /// Without a server no host can be asked.
    pub server_runs: bool,
    pub recorded: usize,
    /// Those that did not answer.
    pub silent: Vec<Named>,
}

/// A breach, with what it breaks and what to do about it.
#[derive(Debug, Serialize)]
pub struct Found {
    pub check: Check,
    pub rule: Rule,
    pub number: u8,
    pub sentence: &'static str,
    pub subject: Subject,
    pub what: String,
    pub advice: &'static str,
}

impl Report {
    pub fn new(breaches: Vec<Breach>, hosts: Option<Hosts>, unread: Vec<String>) -> Self {
        let silent = hosts.as_ref().map_or(0, |hosts| hosts.silent.len());
        Self {
            clean: breaches.is_empty(),
            whole: silent == 0 && unread.is_empty(),
            hosts,
            unread,
            breaches: breaches.into_iter().map(Found::from).collect(),
        }
    }

    /// 0 where all is well, 1 on a breach, 2 where it cannot be told.
    pub fn exit(&self) -> ExitCode {
        match (self.clean, self.whole) {
            (true, true) => ExitCode::SUCCESS,
            (false, _) => ExitCode::from(1),
            (true, false) => ExitCode::from(2),
        }
    }
}

impl Hosts {
    /// With those that were silent at another time.
    pub fn with_silent(mut self, others: Vec<Named>) -> Self {
        for host in others {
            if !self.silent.contains(&host) {
                self.silent.push(host);
            }
        }
        self.silent.sort();
        self
    }
}

impl From<Breach> for Found {
    fn from(breach: Breach) -> Self {
        let Breach {
            check,
            subject,
            what,
        } = breach;
        let rule = check.rule();
        Self {
            check,
            rule,
            number: rule.number(),
            sentence: rule.sentence(),
            subject,
            what,
            advice: check.advice(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.breaches {
            writeln!(f, "{found}")?;
        }
        match &self.hosts {
            Some(hosts) => writeln!(f, "{hosts}")?,
            None => writeln!(f, "hosts were not asked")?,
        }
        for why in &self.unread {
            writeln!(f, "{why}")?;
        }
        match (self.breaches.len(), self.whole) {
            (0, true) => writeln!(f, "clean: every rule holds"),
            (0, false) => writeln!(f, "no breach, but not everything could be looked at"),
            (1, _) => writeln!(f, "1 breach"),
            (count, _) => writeln!(f, "{count} breaches"),
        }
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server_runs,
            recorded,
            silent,
        } = self;
        if !server_runs {
            write!(f, "no server runs here that could ask the hosts; ")?;
        }
        if silent.is_empty() {
            return write!(f, "{recorded} of {recorded} hosts said what they hold");
        }
        let names: Vec<String> = silent.iter().map(Named::to_string).collect();
        let (count, names) = (silent.len(), names.join(", "));
        write!(f, "{count} of {recorded} hosts did not answer: {names}")
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            sentence,
            subject,
            what,
            advice,
            ..
        } = self;
        writeln!(f, "rule {number}: {sentence}")?;
        writeln!(f, "  {subject}")?;
        writeln!(f, "  {what}")?;
        writeln!(f, "  to do: {advice}")
    }
}

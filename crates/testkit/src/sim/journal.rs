//! What a person reads of a run: virtual time, who, what. Also where breaches
//! of the rules are gathered, and what the run's equality with another of the
//! same seed is judged by.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vimana_model::VmId;

use super::clock::SimClock;

/// Clones write into the same journal.
#[derive(Clone)]
pub struct Journal {
    clock: Arc<SimClock>,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    lines: Vec<String>,
    breaches: Vec<String>,
    names: BTreeMap<VmId, String>,
    counts: BTreeMap<&'static str, u64>,
    secrets: Vec<String>,
    /// What was said, but not to people who read along.
    overheard: Vec<String>,
}

impl Journal {
    #[must_use]
    pub fn new(clock: Arc<SimClock>) -> Self {
        Self {
            clock,
            book: Arc::default(),
        }
    }

    /// What nobody may ever be told, or have been.
    pub fn keep_secret(&self, text: impl Into<String>) {
        let secret = text.into();
        let told = {
            let mut book = self.book();
            book.secrets.push(secret.clone());
            let mut all = book.lines.iter().chain(&book.overheard);
            all.find(|line| line.contains(&secret)).cloned()
        };
        if let Some(line) = told {
            self.tell_on(&line, &secret);
        }
    }

    /// What is not for people who read along, and holds no secret either.
    pub fn overhear(&self, who: &str, what: &str) {
        self.look_for_secrets(what);
        self.book().overheard.push(format!("{who}: {what}"));
    }

    fn look_for_secrets(&self, what: &str) {
        let told = |secret: &&String| what.contains(secret.as_str());
        let secret = self.book().secrets.iter().find(told).cloned();
        if let Some(secret) = secret {
            self.tell_on(what, &secret);
        }
    }

    fn tell_on(&self, what: &str, secret: &str) {
        let masked = what.replace(secret, "(a secret)");
        self.breach(21, format!("a secret was told: {masked}"));
    }

    pub fn say(&self, who: &str, what: impl AsRef<str>) {
        self.look_for_secrets(what.as_ref());
        let ms = self.clock.passed_ms();
        let mut book = self.book();
        let mut what = what.as_ref().to_owned();
        if what.contains("vm_") {
            for (id, name) in &book.names {
                what = what.replace(&id.to_string(), name);
            }
        }
        let line = format!("{:>5}.{:03}  {who:<10}  {what}", ms / 1000, ms % 1000);
        book.lines.push(line);
    }

    /// A rule does not hold.
    pub fn breach(&self, rule: u8, what: impl AsRef<str>) {
        let what = format!("rule {rule}: {}", what.as_ref());
        self.say("BREACH", &what);
        let mut book = self.book();
        if !book.breaches.contains(&what) {
            book.breaches.push(what);
        }
    }

    /// What a VM is called from now on, instead of by its id.
    pub fn name(&self, vm: VmId, name: &str) {
        self.book().names.insert(vm, name.to_owned());
    }

    #[must_use]
    pub fn name_of(&self, vm: VmId) -> String {
        let known = self.book().names.get(&vm).cloned();
        known.unwrap_or_else(|| vm.to_string())
    }

    pub fn count(&self, what: &'static str, n: u64) {
        *self.book().counts.entry(what).or_default() += n;
    }

    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.book().counts.clone()
    }

    #[must_use]
    pub fn breaches(&self) -> Vec<String> {
        self.book().breaches.clone()
    }

    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.book().lines.clone()
    }

    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.book().lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Two runs that did the same have the same.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.book().lines.hash(&mut hasher);
        hasher.finish()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

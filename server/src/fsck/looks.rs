//! An installation that works moves on while it is looked at: how often to
//! look, and what counts of what was seen.

use vimana_engine::check::{Breach, Source, in_order, lasting};

use super::report::{Hosts, Report};

/// How often in a row a breach must be seen that hosts or the datastore are
/// part of.
const LOOKS: usize = 3;
/// Looks after which what has not lasted by then is let go.
const MAX_LOOKS: usize = 6;

/// One look at everything.
pub struct Look {
    pub breaches: Vec<Breach>,
    /// The hosts, where they are to be asked.
    pub hosts: Option<Hosts>,
    /// What could not be looked at, and why.
    pub unread: Vec<String>,
}

impl Look {
    fn is_whole(&self) -> bool {
        let silent = self.hosts.as_ref().map_or(0, |hosts| hosts.silent.len());
        silent == 0 && self.unread.is_empty()
    }

    /// Without a server nothing moves, and one look is enough.
    fn nothing_moves(&self) -> bool {
        self.hosts.as_ref().is_some_and(|hosts| !hosts.server_runs)
    }
}

pub fn is_enough(looks: &[Look]) -> bool {
    let Some(last) = looks.last() else {
        return false;
    };
    if last.nothing_moves() || looks.len() >= MAX_LOOKS {
        return true;
    }
    let certain = |breach: &Breach| breach.check.source() == Source::Records;
    if last.is_whole() && last.breaches.iter().all(certain) {
        return true;
    }
    // What the latest looks agree on has lasted; what only the last one saw is
    // given time to go, or to last.
    let lasted = lasted(looks);
    looks.len() >= LOOKS && last.breaches.iter().all(|breach| lasted.contains(breach))
}

/// What counts of the latest looks.
fn lasted(looks: &[Look]) -> Vec<Breach> {
    let mut latest = looks.iter().skip(looks.len().saturating_sub(LOOKS));
    let first = latest.next().map(|look| look.breaches.clone());
    latest.fold(first.unwrap_or_default(), |before, look| {
        lasting(&before, look.breaches.clone())
    })
}

pub fn sum_up(looks: Vec<Look>) -> Report {
    let mut breaches = lasted(&looks);
    // What the records alone told was so, even where it has gone since.
    let certain = looks.iter().flat_map(|look| &look.breaches);
    for breach in certain.filter(|breach| breach.check.source() == Source::Records) {
        if !breaches.contains(breach) {
            breaches.push(breach.clone());
        }
    }
    // A look at everything that suspects nothing speaks for those before it.
    // Otherwise who was silent in one of the looks that count may hide a breach.
    let suspects = |breach: &Breach| breach.check.source() == Source::Reports;
    let whole = |look: &Look| look.is_whole() && !look.breaches.iter().any(suspects);
    let counted = if looks.last().is_some_and(whole) {
        1
    } else {
        LOOKS
    };
    let mut unread: Vec<String> = Vec::new();
    let mut hosts: Option<Hosts> = None;
    for look in looks.into_iter().rev().take(counted) {
        for why in look.unread {
            if !unread.contains(&why) {
                unread.push(why);
            }
        }
        hosts = match (hosts, look.hosts) {
            (Some(later), Some(earlier)) => Some(later.with_silent(earlier.silent)),
            (later, earlier) => later.or(earlier),
        };
    }
    Report::new(in_order(breaches), hosts, unread)
}

#[cfg(test)]
mod tests {
    use vimana_engine::check::{Check, Kind, Named, Subject};

    use super::*;

    fn breach(check: Check) -> Breach {
        let vm = Named::new("vm_1", Some("web-1"));
        Breach {
            check,
            subject: Subject::new(Kind::Vm, vm),
            what: "something".to_owned(),
        }
    }

    fn look(breaches: &[Check], silent: &[&str]) -> Look {
        let silent = silent.iter().map(|name| Named::new(name, Some(name)));
        Look {
            breaches: breaches.iter().copied().map(breach).collect(),
            hosts: Some(Hosts {
                server_runs: true,
                recorded: 2,
                silent: silent.collect(),
            }),
            unread: Vec::new(),
        }
    }

    /// How often it is looked at what looks like this, and what is told then:
    /// the breaches, and who is silent.
    fn told(looks: Vec<Look>) -> (usize, Vec<Check>, Vec<String>) {
        let mut seen = Vec::new();
        for look in looks {
            seen.push(look);
            if is_enough(&seen) {
                break;
            }
        }
        assert!(is_enough(&seen), "it would be looked at again");
        let count = seen.len();
        let report = sum_up(seen);
        let silent = report.hosts.into_iter().flat_map(|hosts| hosts.silent);
        (
            count,
            report.breaches.iter().map(|found| found.check).collect(),
            silent.filter_map(|host| host.name).collect(),
        )
    }

    const LOST: Check = Check::HostLostIt;
    const CERTAIN: Check = Check::SumIsOff;

    #[test]
    fn one_look_is_enough_where_nothing_is_in_doubt() {
        assert_eq!(told(vec![look(&[], &[])]), (1, vec![], vec![]));
        let certain = look(&[CERTAIN], &[]);
        assert_eq!(told(vec![certain]), (1, vec![CERTAIN], vec![]));
    }

    #[test]
    fn what_hosts_are_part_of_must_last() {
        let seen = || look(&[LOST], &[]);
        let lasts = vec![seen(), seen(), seen()];
        assert_eq!(told(lasts), (3, vec![LOST], vec![]));
        let passes = vec![seen(), seen(), look(&[], &[])];
        assert_eq!(told(passes), (3, vec![], vec![]));
        let begins = vec![look(&[Check::PowerDiffers], &[]), seen(), seen(), seen()];
        assert_eq!(told(begins), (4, vec![LOST], vec![]));
    }

    #[test]
    fn what_never_lasts_is_let_go() {
        let other = |n: usize| match n % 2 {
            0 => look(&[LOST], &[]),
            _ => look(&[Check::PowerDiffers], &[]),
        };
        let looks = (0..MAX_LOOKS).map(other).collect();
        assert_eq!(told(looks), (MAX_LOOKS, vec![], vec![]));
    }

    #[test]
    fn a_breach_of_the_records_counts_even_when_it_has_gone() {
        let looks = vec![look(&[CERTAIN, LOST], &[]), look(&[], &[])];
        assert_eq!(told(looks), (2, vec![CERTAIN], vec![]));
    }

    #[test]
    fn a_host_that_falls_silent_may_hide_a_breach() {
        let seen = || look(&[LOST], &[]);
        let falls = vec![seen(), seen(), look(&[], &["host-b"])];
        assert_eq!(told(falls), (3, vec![], vec!["host-b".to_owned()]));
        // One that speaks in the end was only late.
        let late = vec![look(&[], &["host-b"]), look(&[], &[])];
        assert_eq!(told(late), (2, vec![], vec![]));
        // And what it tells then has its time to last.
        let tells = vec![look(&[], &["host-b"]), seen(), seen(), seen()];
        assert_eq!(told(tells), (4, vec![LOST], vec![]));
    }

    #[test]
    fn without_a_server_nothing_moves() {
        let mut alone = look(&[LOST], &["host-a"]);
        alone.hosts = alone.hosts.map(|hosts| Hosts {
            server_runs: false,
            ..hosts
        });
        let silent = vec!["host-a".to_owned()];
        assert_eq!(told(vec![alone]), (1, vec![LOST], silent));
    }
}

//! The nemesis: everything that can happen to an installation, in no
//! particular order.

use std::time::Duration;

use tokio::time::Instant;
use vimana_store::simulation::DiskCall;

use super::net::Way;
use super::server::At;
use super::weather::Sky;
use super::{Chance, World};

const HOUR_MS: i64 = 3600 * 1000;

impl World {
    /// Does its worst for so long. Whatever is down then stays down.
    pub async fn storm(&self, chance: &Chance, long: Duration) {
        let end = Instant::now() + long;
        self.weather.set(Sky::storm(chance));
        while Instant::now() < end {
            tokio::time::sleep(chance.ms(200..=5000)).await;
            // Not everything that is down comes up at once.
            if chance.one_in(2) {
                self.server.start();
            }
            for host in &self.hosts {
                if chance.one_in(2) {
                    host.start_agent();
                }
            }
            for scheduler in &self.schedulers {
                if chance.one_in(2) {
                    scheduler.start();
                }
            }
            self.strike(chance);
            self.check().await;
        }
    }

    fn strike(&self, chance: &Chance) {
        match chance.below(20) {
            0 | 1 => self.server.crash("out of the blue"),
            2..=5 => self.doom_server(chance),
            6 | 7 => self.with_host(chance, |host| host.kill_agent()),
            8 => self.with_host(chance, |host| host.lose_power(chance.below(3))),
            9 => {
                if let Some(scheduler) = chance.pick(&self.schedulers) {
                    scheduler.kill();
                }
            }
            10 | 11 => self.with_host(chance, |host| {
                self.journal.say(&host.name, "its connections break");
                self.journal.count("cuts", 1);
                self.net.cut(&host.name);
            }),
            12 | 13 => self.stall(chance),
            14 => self.step_clock(chance),
            15 => {
                let long = chance.ms(200..=4000);
                self.journal
                    .say("server", format!("its disk is full for {long:?}"));
                self.journal.count("full disks", 1);
                self.weather.fill_disk(Instant::now() + long);
            }
            16 | 17 => self.end_a_machine(chance),
            18 => self.slow_ledger(chance),
            _ => {
                let sky = Sky::storm(chance);
                self.weather.set(sky);
            }
        }
    }

    fn with_host(&self, chance: &Chance, strike: impl FnOnce(&super::Host)) {
        if let Some(host) = chance.pick(&self.hosts) {
            strike(host);
        }
    }

    /// The server dies at one of the next calls of its database.
    fn doom_server(&self, chance: &Chance) {
        let calls = [
            Some(DiskCall::Begin),
            Some(DiskCall::Write),
            Some(DiskCall::Commit),
            Some(DiskCall::Committed),
            Some(DiskCall::Committed),
            None,
        ];
        let deadly = At {
            call: chance.pick(&calls).copied().flatten(),
            after: u32::try_from(chance.below(12)).unwrap_or_default(),
        };
        self.server.die_at(Some(deadly));
    }

    fn stall(&self, chance: &Chance) {
        self.with_host(chance, |host| {
            let ways: &[Way] = match chance.below(3) {
                0 => &[Way::ToServer],
                1 => &[Way::ToAgent],
                _ => &[Way::ToServer, Way::ToAgent],
            };
            let long = chance.ms(500..=25_000);
            let what = format!("nothing gets through for {long:?}: {ways:?}");
            self.journal.say(&host.name, what);
            self.journal.count("stalls", 1);
            for way in ways {
                self.net.stall(&host.name, *way, long);
            }
        });
    }

    fn step_clock(&self, chance: &Chance) {
        let steps = [HOUR_MS, -HOUR_MS, -30 * 24 * HOUR_MS];
        let by = chance.pick(&steps).copied().unwrap_or_default();
        let hours = by / HOUR_MS;
        self.journal
            .say("server", format!("its clock is set by {hours} h"));
        self.journal.count("clock steps", 1);
        self.clock.step(by);
    }

    fn end_a_machine(&self, chance: &Chance) {
        self.with_host(chance, |host| {
            let held = host.sim.observed();
            let Some(one) = chance.pick(&held) else {
                return;
            };
            let ended = if chance.one_in(2) {
                host.sim.guest_power_off(one.vm_id)
            } else {
                host.sim
                    .crash(one.vm_id, "the process was killed by signal 9")
            };
            if ended {
                let what = format!("{} ends by itself", self.journal.name_of(one.vm_id));
                self.journal.say(&host.name, what);
                self.journal.count("machines ended", 1);
            }
        });
    }

    fn slow_ledger(&self, chance: &Chance) {
        self.with_host(chance, |host| {
            let takes = chance.ms(0..=500);
            let what = format!("its ledger's disk takes {takes:?}");
            self.journal.say(&host.name, what);
            host.ledger.sync_takes(takes);
        });
    }

    /// Everything heals.
    pub fn calm(&self) {
        self.journal.say("world", "calm");
        self.weather.set(Sky::default());
        self.net.heal();
        self.server.die_at(None);
        for host in &self.hosts {
            host.ledger.sync_takes(Duration::ZERO);
        }
        self.start_all();
    }
}

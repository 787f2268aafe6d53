//! Larger models, at random: many writers and maintainers, each of them now and then asleep for long, killed, or cut off while
//! its request is on its way. (Nothing in the protocol reads a clock, so that a pause is all that a wrong clock can amount to.)

use std::task::{Context, Poll, Waker};

use super::actors::{Actor, Bounds, Port, forgetter, maintainer, may_be_late, undeleter, writer};
use super::model::{EPOCHS, Habits, Op, Reply, World, code};
use crate::protocol::Rules;

/// A small generator (splitmix64): a seed gives the same run for ever.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).expect("below n")
    }
}

/// An actor in the middle of something.
struct Running {
    actor: Actor,
    port: Port,
    future: std::pin::Pin<Box<dyn Future<Output = Option<u32>>>>,
    comes_back: bool,
    /// Turns for which it is asleep.
    asleep: usize,
    ended: bool,
}

impl Running {
    fn new(actor: Actor, comes_back: bool) -> Self {
        let port = Port::new(Vec::new());
        let future = actor(port.clone(), 0);
        let mut this = Self { actor, port, future, comes_back, asleep: 0, ended: false };
        this.poll();
        this
    }

    fn begin(&mut self, state: u32) {
        self.port = Port::new(Vec::new());
        self.future = (self.actor)(self.port.clone(), state);
        self.poll();
    }

    fn poll(&mut self) {
        match self.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(Some(state)) => self.begin(state),
            Poll::Ready(None) => self.ended = true,
        }
    }

    fn die(&mut self) {
        if self.comes_back { self.begin(0) } else { self.ended = true }
    }
}

/// What was never to happen, if it did.
fn simulate(seed: u64, rules: Rules) -> Option<&'static str> {
    let mut chance = Chance(seed);
    let bounds = Bounds { epochs: EPOCHS as u64, attempts: 3, repacks: chance.below(2) == 0 };
    let first = code(0, 0xff, 0);
    let mut actors: Vec<Running> = (0..1 + u32::try_from(chance.below(4)).expect("few"))
        .map(|n| Running::new(writer(n, rules, bounds), false))
        .chain((0..1 + u32::try_from(chance.below(3)).expect("few")).map(|n| Running::new(maintainer(n, rules, bounds), true)))
        .collect();
    let mut world = [World::default(), World::with_pack(), World::with_snapshot()][chance.below(3)].clone();
    if world.snapshots.contains(&first) && chance.below(2) == 0 {
        actors.push(Running::new(forgetter(first), false));
        actors.push(Running::new(undeleter(first, rules), false));
    }
    let habits = Habits { page: 1 + chance.below(3), seals_replaced: !rules.seal_once, void: rules.void };
    let mut late: Vec<Op> = Vec::new();
    for _ in 0..600 {
        if !late.is_empty() && chance.below(12) == 0 {
            let op = late.swap_remove(chance.below(late.len()));
            world.apply(&op, habits);
            // A request may also be delivered twice.
            if chance.below(4) == 0 {
                late.push(op);
            }
        }
        let who = chance.below(actors.len());
        let actor = &mut actors[who];
        if actor.ended || actor.asleep > 0 {
            actor.asleep = actor.asleep.saturating_sub(1);
        } else {
            step(actor, &mut world, habits, &mut late, &mut chance);
        }
        if let Some(what) = world.violation(habits) {
            return Some(what);
        }
        if world.next_pack >= 15 {
            break;
        }
    }
    None
}

fn step(actor: &mut Running, world: &mut World, habits: Habits, late: &mut Vec<Op>, chance: &mut Chance) {
    let Some(op) = actor.port.pending() else { return };
    match chance.below(64) {
        0 => actor.asleep = 40 + chance.below(160),
        // Its request may still be on its way, or is lost.
        1 => {
            if may_be_late(&op) && !matches!(op, Op::CreatePack) {
                late.push(op);
            }
            actor.die();
        }
        _ => {
            let reply = match op {
                Op::Choose(n) => Reply::Number(u16::try_from(chance.below(n.into())).expect("few")),
                ref op => world.apply(op, habits),
            };
            // An answer that is lost: it was done, and nobody knows.
            if may_be_late(&op) && chance.below(64) == 0 {
                return actor.die();
            }
            actor.port.reply(reply);
            actor.poll();
        }
    }
}

#[test]
fn random_runs_hold() {
    for seed in 0..20_000 {
        assert_eq!(simulate(seed, Rules::ALL), None, "seed {seed}");
    }
}

#[test]
fn random_runs_find_what_is_missing() {
    for (name, rules) in [
        ("fence_check", Rules { fence_check: false, ..Rules::ALL }),
        ("fence_before_list", Rules { fence_before_list: false, ..Rules::ALL }),
        ("rescue", Rules { rescue: false, ..Rules::ALL }),
    ] {
        assert!((0..20_000).any(|seed| simulate(seed, rules).is_some()), "{name}");
    }
}

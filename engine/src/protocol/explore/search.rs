//! All interleavings: breadth first over the states of the store and of the actors.
//!
//! What an actor does next depends on nothing but the replies it got. So its local state is the sequence of them, kept as a
//! node of a tree that is grown by replaying; each node is computed once, however many states of the whole pass through it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::actors::{Actor, Port, may_be_late};
use super::model::{Habits, Op, Reply, World};

/// The node of an actor that has ended.
const ENDED: u32 = u32::MAX;

struct Node {
    parent: Option<(u32, Reply)>,
    /// The state in which it began.
    start: u32,
    op: Op,
    children: HashMap<Reply, u32>,
}

/// An actor, and the tree of its local states.
struct Automaton {
    actor: Actor,
    nodes: Vec<Node>,
    roots: HashMap<u32, u32>,
}

impl Automaton {
    fn root(&mut self, start: u32) -> u32 {
        if let Some(node) = self.roots.get(&start) {
            return *node;
        }
        let node = self.grow(start, None, Vec::new());
        self.roots.insert(start, node);
        node
    }

    fn next(&mut self, node: u32, reply: Reply) -> u32 {
        let at = node as usize;
        if let Some(next) = self.nodes[at].children.get(&reply) {
            return *next;
        }
        let (mut log, mut here) = (vec![reply.clone()], node);
        while let Some((parent, reply)) = &self.nodes[here as usize].parent {
            log.push(reply.clone());
            here = *parent;
        }
        log.reverse();
        let start = self.nodes[at].start;
        let next = self.grow(start, Some((node, reply.clone())), log);
        self.nodes[at].children.insert(reply, next);
        next
    }

    /// Runs the actor from its start through these replies to its next call.
    fn grow(&mut self, start: u32, parent: Option<(u32, Reply)>, log: Vec<Reply>) -> u32 {
        let port = Port::new(log);
        match pin!((self.actor)(port.clone(), start)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(None) => ENDED,
            Poll::Ready(Some(next)) => self.root(next),
            Poll::Pending => {
                let op = port.pending().expect("waits for a call");
                self.nodes.push(Node { parent, start, op, children: HashMap::new() });
                u32::try_from(self.nodes.len() - 1).expect("fewer nodes")
            }
        }
    }
}

/// A model: the store as it begins, who acts, and what may go wrong.
pub(super) struct Model {
    pub(super) world: World,
    pub(super) actors: Vec<Actor>,
    /// How often each actor may be killed. It begins anew, or, if it is a writer, never comes back.
    pub(super) crashes: Vec<u8>,
    pub(super) comes_back: Vec<bool>,
    pub(super) habits: Habits,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    world: World,
    at: Vec<u32>,
    crashes: Vec<u8>,
    late: Vec<Op>,
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) violation: Option<(&'static str, Vec<String>)>,
    /// Whether there was nothing left to look at.
    pub(super) exhausted: bool,
}

struct Search<'m> {
    model: &'m Model,
    automata: Vec<Automaton>,
    seen: HashSet<u128>,
    queue: VecDeque<(State, u32)>,
    /// How each state was reached: number of the state before, and by what.
    history: Vec<(u32, String)>,
    explain: bool,
}

/// Looks at all states that can be reached, at most `limit`.
pub(super) fn search(model: &Model, limit: usize) -> Found {
    let found = Search::new(model, false).run(limit);
    if found.violation.is_some() { Search::new(model, true).run(limit) } else { found }
}

fn hash(state: &State) -> u128 {
    let (mut a, mut b) = (DefaultHasher::new(), DefaultHasher::new());
    state.hash(&mut a);
    7_u8.hash(&mut b);
    state.hash(&mut b);
    u128::from(a.finish()) << 64 | u128::from(b.finish())
}

impl<'m> Search<'m> {
    fn new(model: &'m Model, explain: bool) -> Self {
        let automata =
            model.actors.iter().map(|actor| Automaton { actor: actor.clone(), nodes: Vec::new(), roots: HashMap::new() });
        Self { model, automata: automata.collect(), seen: HashSet::new(), queue: VecDeque::new(), history: Vec::new(), explain }
    }

    fn run(mut self, limit: usize) -> Found {
        let at = self.automata.iter_mut().map(|automaton| automaton.root(0)).collect();
        let start = State { world: self.model.world.clone(), at, crashes: self.model.crashes.clone(), late: Vec::new() };
        self.add(start, 0, String::new);
        let mut states = 0;
        while let Some((state, number)) = self.queue.pop_front() {
            states += 1;
            if let Some(what) = state.world.violation(self.model.habits) {
                return Found { states, violation: Some((what, self.trace(number))), exhausted: false };
            }
            if states >= limit {
                return Found { states, violation: None, exhausted: false };
            }
            self.expand(&state, number);
        }
        Found { states, violation: None, exhausted: true }
    }

    fn trace(&self, mut number: u32) -> Vec<String> {
        let mut steps = Vec::new();
        while number != 0 && self.explain {
            let (before, what) = &self.history[number as usize];
            steps.push(what.clone());
            number = *before;
        }
        steps.reverse();
        steps
    }

    fn add(&mut self, state: State, from: u32, what: impl FnOnce() -> String) {
        if !self.seen.insert(hash(&state)) {
            return;
        }
        let number = if self.explain {
            self.history.push((from, what()));
            u32::try_from(self.history.len() - 1).expect("fewer states")
        } else {
            0
        };
        self.queue.push_back((state, number));
    }

    fn expand(&mut self, state: &State, number: u32) {
        for (i, op) in state.late.iter().enumerate() {
            let mut next = state.clone();
            next.late.remove(i);
            next.world.apply(op, self.model.habits);
            self.add(next, number, || format!("late: {op:?}"));
        }
        for who in 0..state.at.len() {
            let node = state.at[who];
            if node == ENDED {
                continue;
            }
            let op = self.automata[who].nodes[node as usize].op.clone();
            if state.crashes[who] > 0 {
                self.crash(state, number, who, &op);
            }
            if let Op::Choose(n) = op {
                for choice in 0..u16::from(n) {
                    let mut next = state.clone();
                    next.at[who] = self.automata[who].next(node, Reply::Number(choice));
                    self.settle(&mut next, who);
                    self.add(next, number, || format!("{who}: choice {choice} of {n}"));
                }
                continue;
            }
            let mut next = state.clone();
            let reply = next.world.apply(&op, self.model.habits);
            next.at[who] = self.automata[who].next(node, reply.clone());
            self.settle(&mut next, who);
            self.add(next, number, || format!("{who}: {op:?} -> {reply:?}"));
        }
    }

    /// Reads what cannot change any more at once: when it is read makes no difference.
    fn settle(&mut self, state: &mut State, who: usize) {
        while state.at[who] != ENDED {
            let op = &self.automata[who].nodes[state.at[who] as usize].op;
            if !state.world.is_settled(op, self.model.habits) {
                return;
            }
            let reply = state.world.apply(&op.clone(), self.model.habits);
            state.at[who] = self.automata[who].next(state.at[who], reply);
        }
    }

    /// The actor dies, and its call does or does not reach the store, now or later.
    fn crash(&mut self, state: &State, number: u32, who: usize, op: &Op) {
        let mut next = state.clone();
        next.crashes[who] -= 1;
        next.at[who] = if self.model.comes_back[who] { self.automata[who].root(0) } else { ENDED };
        if may_be_late(op) {
            let mut with = next.clone();
            with.late.push(op.clone());
            with.late.sort_unstable();
            self.add(with, number, || format!("{who}: dies, and on its way is {op:?}"));
        }
        self.add(next, number, || format!("{who}: dies"));
    }
}

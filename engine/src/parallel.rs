//! Several small reads at a time: where each costs a round trip, one after another they would cost the user seconds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::monitor::lock;

/// Most threads for one set of small reads.
const MOST: usize = 16;

/// Does `run` for all items, up to `threads` at a time, and returns the results in the order of the items.
pub fn map<T: Sync, R: Send>(threads: usize, items: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(MOST).min(items.len());
    if threads <= 1 {
        return items.iter().map(run).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, item)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?))) {
                    let result = run(item);
                    lock(&done).push((i, result));
                }
            });
        }
    });
    let mut done = std::mem::take(&mut *lock(&done));
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::map;

    #[test]
    fn keeps_the_order() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [0, 1, 3, 100] {
            assert_eq!(map(threads, &items, |n| n * 2), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        }
        assert!(map(4, &[] as &[u32], |n| *n).is_empty());
    }
}

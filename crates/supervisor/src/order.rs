//! Who waits for whom: pure questions about the `after` graph. Names are already resolved to
//! positions in the list of processes.

/// A process that takes part in a circle of `after`, if there is one.
pub(crate) fn circle(after: &[Vec<usize>]) -> Option<usize> {
    let mut settled = vec![false; after.len()];
    loop {
        let ready: Vec<usize> = (0..after.len())
            .filter(|index| !is(&settled, *index))
            .filter(|index| needs(after, *index).iter().all(|need| is(&settled, *need)))
            .collect();
        if ready.is_empty() {
            return settled.iter().position(|settled| !settled);
        }
        for index in ready {
            if let Some(slot) = settled.get_mut(index) {
                *slot = true;
            }
        }
    }
}

/// The processes that may be started for the first time: they wait, and all they need is there.
pub(crate) fn startable(after: &[Vec<usize>], waiting: &[bool], there: &[bool]) -> Vec<usize> {
    (0..after.len())
        .filter(|index| is(waiting, *index))
        .filter(|index| needs(after, *index).iter().all(|need| is(there, *need)))
        .collect()
}

/// The processes that may be stopped: not over, and all that depend on them, however indirectly, are
/// over. (A job that is done stands between the database and the nodes.)
pub(crate) fn stoppable(after: &[Vec<usize>], over: &[bool]) -> Vec<usize> {
    let mut needed = vec![false; after.len()];
    let mut users: Vec<usize> = (0..after.len()).filter(|index| !is(over, *index)).collect();
    while let Some(user) = users.pop() {
        for need in needs(after, user) {
            if let Some(slot) = needed.get_mut(*need)
                && !*slot
            {
                *slot = true;
                users.push(*need);
            }
        }
    }
    (0..after.len())
        .filter(|index| !is(over, *index) && !is(&needed, *index))
        .collect()
}

fn needs(after: &[Vec<usize>], index: usize) -> &[usize] {
    after.get(index).map_or(&[], Vec::as_slice)
}

fn is(flags: &[bool], index: usize) -> bool {
    flags.get(index).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// postgres(0) ← prepare(1) ← node(2), node(3) ← gateway(4)
    fn installation() -> Vec<Vec<usize>> {
        vec![vec![], vec![0], vec![1], vec![1], vec![2, 3]]
    }

    #[test]
    fn a_circle_is_found_and_a_chain_is_none() {
        assert_eq!(circle(&installation()), None);
        assert_eq!(circle(&[vec![], vec![2], vec![1]]), Some(1));
        assert_eq!(circle(&[vec![0]]), Some(0));
    }

    #[test]
    fn a_process_starts_when_all_it_needs_is_there() {
        let all = [true; 5];
        let mut waiting = all;
        assert_eq!(startable(&installation(), &waiting, &[false; 5]), [0]);
        waiting[0] = false;
        let mut there = [false; 5];
        there[0] = true;
        assert_eq!(startable(&installation(), &waiting, &there), [1]);
        waiting[1] = false;
        there[1] = true;
        assert_eq!(startable(&installation(), &waiting, &there), [2, 3]);
    }

    #[test]
    fn dependants_are_stopped_first() {
        let mut over = [false; 5];
        assert_eq!(stoppable(&installation(), &over), [4]);
        over[4] = true;
        over[1] = true;
        assert_eq!(stoppable(&installation(), &over), [2, 3]);
        over[2] = true;
        assert_eq!(stoppable(&installation(), &over), [3]);
        over[3] = true;
        assert_eq!(stoppable(&installation(), &over), [0]);
    }
}

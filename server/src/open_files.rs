//! How many files the server may have open: every host's and every reader's
//! connection is one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets us without asking. Shells and
/// service managers start programs with a low one, for the sake of those that
/// use `select`; this is none of them. Where the files run out, so they do for
/// the database.
///
/// # Errors
/// The system's.
pub fn raise_limit() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_the_system_allows_may_be_open() {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // What other tests of this process need, too.
        let low = current.map(|most| most.min(512));
        let lowered = Rlimit {
            current: low,
            maximum,
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        raise_limit().unwrap();
        let raised = getrlimit(Resource::Nofile);
        assert_eq!(raised.current, maximum);
        assert_ne!(raised.current, low);
    }
}

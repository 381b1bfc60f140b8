//! The story: something that reads a vault is killed and leaves what it read, unencrypted. The next one clears that away, and
//! leaves alone what is of somebody who lives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rekindle_vault::Scratch;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Not a test by itself: the reader that is killed.
#[test]
fn reader_to_be_killed() {
    let Ok(parent) = std::env::var("SCRATCH_TO_LEAVE") else { return };
    let scratch = Scratch::new(Path::new(&parent), "test").unwrap();
    std::fs::write(scratch.path().join("secret"), "of the cluster").unwrap();
    eprintln!("made");
    let _ = std::io::stdin().read_exact(&mut [0]);
}

fn reader(parent: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reader_to_be_killed", "--nocapture"])
        .env("SCRATCH_TO_LEAVE", parent)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut made = [0; 4];
    child.stderr.as_mut().unwrap().read_exact(&mut made).unwrap();
    child
}

fn left(parent: &Path) -> Vec<PathBuf> {
    let mut left: Vec<PathBuf> =
        std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    left
}

#[test]
fn what_the_dead_left_goes_and_what_the_living_have_stays() {
    let parent = tempfile::tempdir().unwrap();
    let (mut dies, mut lives) = (reader(parent.path()), reader(parent.path()));
    let other = parent.path().join(".rekindle-other-1");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(parent.path().join(".rekindle-test-file"), "no folder").unwrap();
    assert_eq!(left(parent.path()).len(), 4);
    let both = Scratch::new(parent.path(), "test").unwrap();
    assert_eq!(left(parent.path()).len(), 5, "both live");
    dies.kill().unwrap();
    dies.wait().unwrap();
    let path = both.path().to_owned();
    let third = Scratch::new(parent.path(), "test").unwrap();
    let now = left(parent.path());
    assert_eq!(now.len(), 5, "one has gone, one has come: {now:?}");
    assert!(now.contains(&path) && now.contains(&other) && now.contains(&third.path().to_owned()));
    lives.kill().unwrap();
    lives.wait().unwrap();
    drop((both, third));
    drop(Scratch::new(parent.path(), "test").unwrap());
    assert_eq!(left(parent.path()), [other, parent.path().join(".rekindle-test-file")]);
}

// Many at once, each making and dropping: nobody's folder goes while it is used.
#[test]
fn many_at_once() {
    let parent = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let parent = parent.path();
            scope.spawn(move || {
                for round in 0..50 {
                    let scratch = Scratch::new(parent, "test").unwrap();
                    let file = scratch.path().join("secret");
                    std::fs::write(&file, format!("{thread} {round}")).unwrap();
                    // one within another, as a restore makes it
                    let inner = Scratch::new(scratch.path(), "test").unwrap();
                    assert!(inner.path().exists());
                    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{thread} {round}"));
                }
            });
        }
    });
    assert_eq!(left(parent.path()), Vec::<PathBuf>::new());
}

//! Runs, forward and back, over steps of every effect class.

use crate::world::{Hand, Project, shown};
use pgrunbook_engine::*;

/// One step of each class, over two phases.
pub const FOUR: &str = r#"# Four

## First

```toml step
transactional = "t"
target = "main"
undo = "auto"
```

```toml step
resolvable = "r"
target = "main"
undo = "drop-r"
```

```toml undo
resolvable = "drop-r"
target = "main"
```

## Second

```toml step
idempotent = "i"
target = "main"
undo = "auto"
```

```toml step
opaque = "o"
target = "main"
undo = "down"
```

```toml step
gate = "g"
target = "main"
```
"#;

#[tokio::test]
async fn run_goes_forward_to_its_end_and_is_undone_last_in_first_out() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert_eq!(project.world.there(), ["i", "o", "r", "t"]);

    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(project.world.effects(), ["+t", "+r", "+i", "+o", "-o", "-i", "-r", "-t"]);
    let lines = shown(&project.events(&run).await);
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn outcome_of_a_step_and_intent_of_the_next_are_one_append() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let fuse = crate::world::Fuse::default();
    let hand = Hand::default();
    project.engine_with(fuse.clone()).run(&run, &RunOptions::default(), &hand).await.unwrap();
    // Two points each: the claim, `claimed`, one append and one effect for each of five steps, the last outcome of the
    // first phase (the targets are identified before the second), and the last outcome with `ended`.
    assert_eq!(fuse.passed(), 2 + 2 + 5 * 4 + 2 + 2);
}

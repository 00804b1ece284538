//! Whatever is done to the source, in whatever pieces it arrives: both sides are equal in the end.

use pgrunbook_postgres::Session;
use pgrunbook_postgres::apply::{Applier, Options, Rename};

use super::pair::Pair;

/// SplitMix64: enough to choose, and a seed says it all.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (value ^ (value >> 31)) % limit
    }
}

const TABLES: &str = "
    CREATE TABLE a (id int PRIMARY KEY, place int UNIQUE, body text, n int DEFAULT 0);
    ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE b (x int, y json); ALTER TABLE b REPLICA IDENTITY FULL;
    CREATE TABLE c (k1 int, k2 text COLLATE \"C\", v numeric, at timestamptz, PRIMARY KEY (k2, k1));
    CREATE TABLE d (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED, body text);
    ALTER TABLE d REPLICA IDENTITY FULL";

fn statement(chance: &mut Chance) -> String {
    let (id, other, n) = (chance.below(30), chance.below(30), chance.below(1000));
    match chance.below(24) {
        0..3 => format!("INSERT INTO a VALUES ({id}, {n}, repeat('x', {}), 0)", if n % 2 == 0 { 4000 } else { 5 }),
        3..6 => format!("UPDATE a SET n = n + 1 WHERE id % 5 = {}", id % 5),
        6 => format!("UPDATE a SET body = repeat('y', {}) WHERE id = {id}", n * 5),
        7 => format!("UPDATE a SET id = {other} WHERE id = {id}"),
        8 => format!(
            "UPDATE a SET place = -1 WHERE id = {id}; UPDATE a SET place = (SELECT place FROM a WHERE id = {id}) WHERE false;
             WITH p AS (SELECT place FROM a WHERE id = {other}) UPDATE a SET place = NULL WHERE id = {other};
             UPDATE a SET place = {n} WHERE id = {id}"
        ),
        9 => format!("DELETE FROM a WHERE id = {id}"),
        10 => format!("DELETE FROM a WHERE id = {id}; INSERT INTO a VALUES ({id}, {n}, 'again', 7)"),
        11 => format!("UPDATE a SET place = place + 1 WHERE id > {id}"),
        12 => "UPDATE a SET id = id + 100 WHERE id < 5; UPDATE a SET id = id - 100 WHERE id >= 100".to_owned(),
        13 => format!("INSERT INTO b SELECT i % 3, '{{\"n\": {}}}' FROM generate_series(1, 4) AS i", n % 3),
        14 => format!("UPDATE b SET x = {} WHERE x = {}", n % 4, id % 4),
        15 => "DELETE FROM b WHERE ctid = (SELECT min(ctid) FROM b)".to_owned(),
        16..18 => format!("INSERT INTO c VALUES ({id}, 'k{other}', {n}.0, now()) ON CONFLICT (k2, k1) DO UPDATE SET v = c.v + 0.10"),
        18 => format!("UPDATE c SET k1 = k1 + 100 WHERE k1 = {id}"),
        19 => format!("DELETE FROM c WHERE k1 = {id}"),
        20 => format!("INSERT INTO d VALUES ({id}, {id}, 'd')"),
        21 => format!("UPDATE d SET place = {} - place", chance.below(2) * 60 + 30),
        22 => format!("UPDATE d SET id = id + 50, body = 'moved' WHERE id = {id}; DELETE FROM d WHERE id > 70"),
        _ => ["TRUNCATE b", "TRUNCATE a, d", "TRUNCATE c RESTART IDENTITY"][(n % 3) as usize].to_owned(),
    }
}

async fn both_sides_are_equal(seed: u64) {
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let mut pair = Pair::new(TABLES).await;
    // An error would take the temporary slot with it.
    let writer = Session::connect(pair.source.options(), "test").await.unwrap();
    pair.binary = chance.below(2) == 0;
    let mut events = Vec::new();
    for _ in 0..6 {
        for _ in 0..chance.below(40) {
            let statements: Vec<String> = (0..=chance.below(5)).map(|_| statement(&mut chance)).collect();
            let transaction = format!("BEGIN; {}; COMMIT", statements.join("; "));
            // Not all can be done: then none of it is.
            if writer.execute(&transaction).await.is_err() {
                writer.execute("ROLLBACK").await.unwrap();
            }
        }
        events.extend(pair.events().await);
        let mut finished = false;
        while !finished {
            let options = Options {
                batch_rows: 1 + chance.below(60) as usize,
                held_bytes: [300, 3000, 1 << 20][chance.below(3) as usize],
                ..Options::new("tenant:forward", Rename::one("public", "tenant"))
            };
            let mut applier = Applier::open(&pair.to, options).await.unwrap();
            // Dropped somewhere, if it is not the last time.
            let until = chance.below(2 * events.len() as u64 + 1) as usize;
            for event in events.iter().take(until) {
                applier.push(event.clone()).await.unwrap();
                if chance.below(50) == 0 {
                    applier.flush().await.unwrap();
                }
            }
            finished = until >= events.len();
            if finished {
                applier.flush().await.unwrap();
            }
        }
        pair.same().await;
    }
}

#[tokio::test]
async fn random_workloads_arrive_in_random_pieces() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for seed in [1, 2, 3, u64::from(now.subsec_nanos())] {
        both_sides_are_equal(seed).await;
    }
}

//! A profile as the years have left it: odd numbers, odd texts, long notes. The same for the same seed.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::sqlite::SCHEMA;

const WORDS: [&str; 12] =
    ["invoice", "garden", "Zoë's", "plan-B", "draft", "naïve", "camera", "ЖУРНАЛ", "recipe", "tax", "winter", "boat"];

/// Makes a profile of so many items, with notes and tags. The file must not be there.
///
/// # Errors
/// If SQLite cannot write it, or it is there.
pub fn make(file: &Path, items: u32, seed: u64) -> rusqlite::Result<()> {
    if file.exists() {
        return Err(rusqlite::Error::InvalidPath(file.to_owned()));
    }
    let mut db = Connection::open(file)?;
    db.execute_batch(SCHEMA)?;
    let mut dice = Dice(seed);
    let transaction = db.transaction()?;
    {
        let mut item = transaction.prepare(
            "INSERT INTO items (id, title, body, score, pinned, meta, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        )?;
        let mut note = transaction
            .prepare("INSERT INTO notes (item_id, author, body, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)")?;
        let mut tag =
            transaction.prepare("INSERT OR IGNORE INTO item_tags (item_id, tag, weight) VALUES (?1, ?2, ?3)")?;
        for id in 1..=i64::from(items) {
            let title = format!("{} {} {id}", dice.word(), dice.word());
            let body: Vec<&str> = (0..dice.below(30)).map(|_| dice.word()).collect();
            let score = (dice.below(10) > 0).then(|| dice.score());
            let meta = format!(
                "{{\"color\": \"{}\", \"rank\": {}, \"nested\": {{\"b\": 1, \"a\": [1.10, null]}}}}",
                dice.word(),
                dice.below(1000)
            );
            let at = dice.moment();
            item.execute(params![id, title, body.join(" "), score, dice.below(5) == 0, meta, at])?;
            for _ in 0..dice.below(4) {
                let length = if dice.below(50) == 0 { 4_000 } else { dice.below(40) };
                let text: Vec<&str> = (0..=length).map(|_| dice.word()).collect();
                note.execute(params![id, dice.word(), text.join(" "), dice.moment()])?;
            }
            for _ in 0..dice.below(3) {
                tag.execute(params![id, dice.word(), dice.score()])?;
            }
        }
    }
    transaction.commit()
}

/// Numbers that look random (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn word(&mut self) -> &'static str {
        WORDS[usize::try_from(self.below(WORDS.len() as u64)).unwrap_or(0)]
    }

    /// With all its digits, so that one that is lost on the way shows.
    #[expect(clippy::cast_precision_loss, reason = "the 53 bits that a double has")]
    fn score(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 100.0
    }

    /// In the last years, to the millisecond.
    fn moment(&mut self) -> String {
        let milliseconds = 1_600_000_000_000 + i64::try_from(self.below(160_000_000_000)).unwrap_or(0);
        jiff::Timestamp::from_millisecond(milliseconds).map_or_else(|_| String::new(), |moment| format!("{moment:.3}"))
    }
}

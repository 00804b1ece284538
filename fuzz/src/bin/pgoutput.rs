//! Any bytes, cut into messages, are decoded and assembled without harm; cells lie in the message.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pgrunbook_postgres::Lsn;
use pgrunbook_postgres::pgoutput::assemble::Assembler;
use pgrunbook_postgres::pgoutput::decode::decode;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    for in_block in [false, true] {
        if let Err(error) = decode(&bytes, in_block) {
            assert!(error.offset <= data.len());
        }
    }
    // A stream: each message with its length before it.
    let mut assembler = Assembler::new(&std::env::temp_dir(), Lsn(0)).telling_early(Lsn(0));
    let mut rest = bytes;
    while let Some((length, _)) = rest.split_first() {
        let end = (1 + usize::from(*length)).min(rest.len());
        let message = rest.slice(1..end);
        rest = rest.slice(end..);
        if assembler.push(Lsn(1), &message).is_err() {
            return;
        }
        loop {
            match assembler.next_event() {
                // With it goes the verdict on what is told early: it is not kept.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

//! Requests of any bytes against the rules of `gateway::fuzzing`: what a node gets of a request, its
//! target, host, fields and trailers. The parsing before it is hyper's and fuzzed there.
//!
//! `cargo fuzz run request fuzz/corpus/request fuzz/seeds/request -- -dict=fuzz/request.dict`
//! (with a stable toolchain: `cargo fuzz run --sanitizer none …`).

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(broken) = gateway::fuzzing::request(data) {
        panic!("{broken}");
    }
});

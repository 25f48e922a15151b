//! The full size, by hand: `cargo nextest run -p storage --run-ignored only full_size --no-capture`.
//! With `BINGO_FULL_URL` it fills that database instead of a test server's.

use storage::PostgresCluster;
use storage::fill::{FillOptions, Progress, prepare};

use crate::database::{Database, counts};

#[tokio::test]
#[ignore = "takes a quarter of a minute and half a gigabyte"]
async fn the_full_size_is_filled_and_then_left_alone() {
    let url = std::env::var("BINGO_FULL_URL").ok();
    let database = match url {
        None => Some(Database::start().await),
        Some(_) => None,
    };
    let cluster = match (&database, url) {
        (Some(database), _) => database.cluster.clone(),
        (None, url) => PostgresCluster::from_url(&url.unwrap()).unwrap(),
    };
    let started = std::time::Instant::now();
    let last = std::sync::Mutex::new(None);
    let show = |step: Progress| {
        if last.lock().unwrap().replace(step.phase) != Some(step.phase) {
            println!(
                "{:>7.3} s {}",
                started.elapsed().as_secs_f64(),
                step.phase.name()
            );
        }
    };
    let options = FillOptions::default();
    let report = prepare(&cluster, &options, &show).await.unwrap();
    println!("filled: {report:?}");
    assert_eq!(counts(&report), [500_000, 29_019, 5_000_000]);
    let again = prepare(&cluster, &options, &|_| {}).await.unwrap();
    println!("again: {:?}", again.elapsed);
    assert!(again.elapsed < std::time::Duration::from_secs(1));
}

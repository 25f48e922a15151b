//! The plans of the three lists. A list that leaves its index reads and sorts millions of rows for its
//! first one (performance.md, "The lists"): that is found here and not by its users. On the full data:
//! the planner's choice depends on its size.

mod queries_fixture;

use private_postgres::TestServer;
use queries_fixture::client;
use storage::fill::{FillOptions, prepare};
use storage::{LIST_ROWS_MAX, LIST_SETTINGS, PostgresCluster, list_statements, page_statements};
use tokio_postgres::Client;

/// The lines of a plan.
async fn plan(sql: &Client, statement: &str) -> Vec<String> {
    let name = "DEALLOCATE ALL; PREPARE list (bigint) AS";
    sql.batch_execute(&format!("{name} {statement}"))
        .await
        .unwrap();
    explained(sql, &format!("EXPLAIN EXECUTE list ({LIST_ROWS_MAX})")).await
}

async fn explained(sql: &Client, explain: &str) -> Vec<String> {
    let lines = sql.simple_query(explain).await.unwrap();
    let lines = lines.iter().filter_map(|line| match line {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    lines.collect()
}

/// What is wrong with a plan: an index not used, rows read that are not wanted, all rows sorted.
fn faults(plan: &[String], index: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !plan.iter().any(|line| line.contains(index)) {
        faults.push(format!("{index} is not used"));
    }
    for line in plan {
        let node = line.trim_start().trim_start_matches("->").trim_start();
        let is_bad = node.starts_with("Sort  (")
            || node.starts_with("Seq Scan on sessions")
            || node.starts_with("Parallel Seq Scan on sessions");
        if is_bad {
            faults.push(node.to_owned());
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_list_is_read_by_its_index_and_a_plan_that_leaves_it_is_found() {
    let server = TestServer::start().unwrap();
    let cluster = PostgresCluster::from_url(&server.url()).unwrap();
    prepare(&cluster, &FillOptions::default(), &|_| {})
        .await
        .unwrap();
    let sql = client(&server).await;
    sql.batch_execute(LIST_SETTINGS).await.unwrap();
    for (index, statement) in list_statements() {
        let plan = plan(&sql, &statement).await;
        let none: [String; 0] = [];
        assert_eq!(faults(&plan, index), none, "{}", plan.join("\n"));
    }
    for (index, types, statement, values) in page_statements() {
        let prepare = format!("DEALLOCATE ALL; PREPARE page ({types}) AS {statement}");
        sql.batch_execute(&prepare).await.unwrap();
        let plan = explained(&sql, &format!("EXPLAIN EXECUTE page ({values})")).await;
        let none: [String; 0] = [];
        assert_eq!(faults(&plan, index), none, "{}", plan.join("\n"));
    }
    // The same test without the indexes.
    for (index, statement) in list_statements() {
        sql.batch_execute(&format!("DROP INDEX {index}"))
            .await
            .unwrap();
        let plan = plan(&sql, &statement).await;
        let faults = faults(&plan, index);
        assert!(faults.len() > 1, "{faults:?}\n{}", plan.join("\n"));
    }
}

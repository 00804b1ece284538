// Takes a venture's data in, and says how it went.
import type { Client } from "pg";

/** One batch of rows of one venture. */
export interface Batch {
  ventureId: string;
  rows: { note: string }[];
}

export async function ingest(client: Client, batch: Batch): Promise<void> {
  if (process.env.VH_INGEST_ENABLED !== "true") return;
  await client.query("BEGIN");
  try {
    // Local to the transaction: a pooled connection must not carry it to the next one.
    await client.query("SELECT set_config('vh.venture_id', $1, true)", [batch.ventureId]);
    const run = await client.query(
      `INSERT INTO vh.ingest_runs (venture_id)
       VALUES ($1)
       RETURNING id`,
      [batch.ventureId],
    );
    for (const row of batch.rows) {
      await client.query("INSERT INTO vh.venture_notes (venture_id, note) VALUES ($1, $2)", [batch.ventureId, row.note]);
    }
    await client.query(
      `UPDATE vh.ingest_runs AS run
       SET status = 'success', row_count = $2, finished_at = clock_timestamp()
       WHERE run.id = $1`,
      [run.rows[0].id, batch.rows.length],
    );
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    // What the server refused is not in the trail: its SQLSTATE is told here.
    const { message, code } = error as Error & { code?: string };
    await client.query(
      "INSERT INTO audit.service_logs (service, level, message, sqlstate) VALUES ('ingest', 'ERROR', $1, $2)",
      [message, code ?? null],
    );
    throw error;
  }
}

/** What engineering is doing, for the hub's front page: from the views, never INSERT INTO eng or UPDATE of its tables. */
export async function progress(client: Client): Promise<{ code: string; done: number; requirements: number }[]> {
  const answer = await client.query("SELECT code, done, requirements FROM views.eng_directive_progress ORDER BY code");
  return answer.rows;
}

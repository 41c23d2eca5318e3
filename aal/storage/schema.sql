-- run.db: what a run leaves for reports, resume and users' own SQL. Times are seconds since the run began.
-- Offers, draws and answers are only ever appended, so that a label costs the same however many queries wait; the view
-- `queries` puts them together. What no model chose has no version.
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT);
-- Where every image of the set began: test, validation, initial (labelled from the start) or shard (of a worker);
-- its true label, -1 where it is unknown; the file it came from, relative to data_dir; and `held_out`, where people give
-- its label and it is set aside for: test or validation.
CREATE TABLE IF NOT EXISTS examples(item INTEGER PRIMARY KEY, part TEXT, worker INTEGER, truth INTEGER, path TEXT,
    held_out TEXT);
-- One row a published model: its training set is the first `labels` of L without those that are held out, `model` the network, `epoch` the epoch that
-- validation chose, `ticket` the number of the training job, `target` the target model it is a version of, `checksum`
-- that which its file holds.
CREATE TABLE IF NOT EXISTS models(version INTEGER PRIMARY KEY, server INTEGER, labels INTEGER, started_at REAL,
    published_at REAL, val_accuracy REAL, test_accuracy REAL, path TEXT, model TEXT, epoch INTEGER, ticket INTEGER,
    target INTEGER, checksum TEXT);
-- One row an epoch of the training of a model: mean loss; validation accuracy in the precision of the training, if any.
CREATE TABLE IF NOT EXISTS epochs(version INTEGER, epoch INTEGER, loss REAL, val_accuracy REAL);
-- One row a pair of classes that occurs: how many test images of class `truth` the model took for class `predicted`.
CREATE TABLE IF NOT EXISTS confusion(version INTEGER, truth INTEGER, predicted INTEGER, images INTEGER);
-- One row an offer of an id: the model version that chose it and the newest one when it was offered. An id that was
-- withdrawn may be offered again. What no model chose has the strategy `random`, because there was no model yet, or
-- `held out`.
CREATE TABLE IF NOT EXISTS offers(item INTEGER, worker INTEGER, strategy TEXT, version INTEGER, newest INTEGER,
    offered_at REAL);
-- One row a draw: from asking for a query to having one; without `asked_at`, another annotator passed it on.
CREATE TABLE IF NOT EXISTS waits(annotator INTEGER, asked_at REAL, got_at REAL, item INTEGER);
-- One row for everything that an annotator said of an image, in order; rows are never changed. `kind` is: label;
-- cannot tell (an answer without a label); check (of a known image, which becomes no label); undo (this annotator takes
-- the answer before it back); correction (the last word, by a supervisor; without a label: the image is to have none).
CREATE TABLE IF NOT EXISTS answers(arrival INTEGER PRIMARY KEY, item INTEGER, annotator INTEGER, label INTEGER,
    answered_at REAL, kind TEXT DEFAULT 'label');
-- The answers that stand: the last of each annotator for each image, unless it was taken back.
CREATE VIEW IF NOT EXISTS standing_answers AS
    SELECT arrival, item, annotator, label, answered_at, kind
    FROM (SELECT *, max(arrival) FROM answers WHERE kind <> 'correction' GROUP BY item, annotator) WHERE kind <> 'undo';
-- One row a label that was bought, as it is now: what all answers to the image come to, how sure that is (0 to 1), who
-- gave the last of them and when. `arrival` is its place in L, from 0: the initial labels come before all of them. A
-- label that was taken back is empty; `changed_at` is when people last changed it.
CREATE TABLE IF NOT EXISTS labels(arrival INTEGER PRIMARY KEY, item INTEGER, label INTEGER, confidence REAL,
    annotator INTEGER, answered_at REAL, changed_at REAL);
-- One row an image that is to have no label, because people could not tell what it is or a supervisor said so.
CREATE TABLE IF NOT EXISTS retired(item INTEGER PRIMARY KEY, retired_at REAL);
-- One row an offer that was taken back: the query went to its shard when a batch came that `version` had chosen.
CREATE TABLE IF NOT EXISTS withdrawals(item INTEGER, version INTEGER, withdrawn_at REAL);
-- The offers that stand: of each id its last one, unless it was withdrawn as often as it was offered.
CREATE VIEW IF NOT EXISTS standing_queries AS
    SELECT item, worker, strategy, version, newest, offered_at
    FROM (SELECT *, max(rowid), count(*) AS times FROM offers GROUP BY item)
    LEFT JOIN (SELECT item, count(*) AS withdrawn FROM withdrawals GROUP BY item) USING (item)
    WHERE times > coalesce(withdrawn, 0);
-- One row an offer that stands: its label and its draw, as far as it has come. Of several draws it is the one of who
-- gave the last answer, or else the last.
CREATE VIEW IF NOT EXISTS queries AS
    SELECT offers.item, worker, strategy, version, newest, offered_at, draws.got_at AS drawn_at,
        coalesce(labels.annotator, draws.annotator) AS annotator, answered_at, label, arrival
    FROM standing_queries AS offers
    LEFT JOIN (
        SELECT item, annotator, got_at, max(place) FROM (
            SELECT waits.item, waits.annotator, got_at,
                waits.rowid + CASE WHEN labels.annotator = waits.annotator THEN 1000000000000 ELSE 0 END AS place
            FROM waits LEFT JOIN labels ON labels.item = waits.item) GROUP BY item
    ) AS draws ON draws.item = offers.item
    LEFT JOIN labels ON labels.item = offers.item;
-- One row a training job that was given out, published or not: its training set is the first `labels` of L, or those of
-- them that began in the shard of worker `owner`; it starts from the weights of version `start`, or from
-- scratch, and trains number `network` of the networks in `models`.
CREATE TABLE IF NOT EXISTS jobs(number INTEGER PRIMARY KEY, server INTEGER, labels INTEGER, given_at REAL, kind TEXT,
    target INTEGER, owner INTEGER, start INTEGER, network INTEGER);
-- The jobs under the name of earlier versions.
CREATE VIEW IF NOT EXISTS tickets AS SELECT number, server, labels, given_at FROM jobs;
-- One row an interruption that the run was resumed from: the last time on record before it, and when it went on.
CREATE TABLE IF NOT EXISTS breaks(stopped_at REAL, resumed_at REAL, ended TEXT);
-- One row a batch that a worker offered: `started_at` is when it began to select, `versions` all models it selected with.
CREATE TABLE IF NOT EXISTS selections(worker INTEGER, batch INTEGER, strategy TEXT, version INTEGER, items INTEGER,
    started_at REAL, offered_at REAL, versions TEXT);
-- One row a selection that was granted under `max_staleness: auto`, and why: S would be empty (`low`), or a `newer model`
-- was there. `waiting` queries were in S, `older` of them replaceable, `selecting` ids on their way to it; a selection is
-- due at `mark`, which follows from the draws, the time of a selection, and a safety in deviations of the demand.
CREATE TABLE IF NOT EXISTS grants(worker INTEGER, batch INTEGER, items INTEGER, granted_at REAL, reason TEXT,
    waiting INTEGER, selecting INTEGER, older INTEGER, mark INTEGER, draws_per_s REAL, selection_s REAL,
    deviations REAL);
-- Of a federated run: one row a local training that has ended, in order of arrival: `job` is its number in `jobs`, `version`
-- the version of the global model that came next when it was given, `start` the one that it began with (empty: new
-- weights), `labels` the client's own that it trained on, `loss` the mean of its last epoch; `dropped_out` is 1 where the
-- client dropped out and its weights never came. The files are removed when nobody needs them any more.
CREATE TABLE IF NOT EXISTS local_models(job INTEGER, client INTEGER, version INTEGER, labels INTEGER, start INTEGER,
    started_at REAL, delivered_at REAL, loss REAL, path TEXT, checksum TEXT, dropped_out INTEGER);
-- Of a federated run: one row a local model that a version was made of: its weight in the average, from 0 to 1; how many
-- versions had been published since the one that it began with; and why it was left out, if it was.
CREATE TABLE IF NOT EXISTS rounds(version INTEGER, client INTEGER, job INTEGER, weight REAL, staleness INTEGER,
    left_out TEXT);
-- One row a batch whose redundancy was measured: the mean cosine of its images to their nearest neighbour `within` the
-- batch, and `against` the `waiting` ids that were chosen and not answered yet.
CREATE TABLE IF NOT EXISTS redundancy(worker INTEGER, batch INTEGER, waiting INTEGER, within REAL, against REAL);

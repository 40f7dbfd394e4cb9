// BullMQ as a contestant of `just bench redis`: one step of the measurement on the Redis at PORT, its time as one line of
// JSON. The steps are those of the trait `Contestant` in crates/bench/src/redis/contestant.rs.
//
//   node bench.mjs fill PORT JOBS                          leaves JOBS waiting
//   node bench.mjs drain PORT JOBS WORKERS                 runs JOBS that wait
//   node bench.mjs together PORT JOBS WORKERS SUBMITTERS   submits JOBS one by one while they run
//
// Settings are those that a user gets who sets none: finished jobs are kept, locks and the look for stalled jobs are on.

import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const [step, port, jobs, workers, submitters] = process.argv.slice(2).map((word, at) => (at === 0 ? word : Number(word)));
const BULK = 1000;
const WARM_UP = 2000;

// One for each queue and worker, as BullMQ makes them from an address.
const connection = () => new Redis({ host: '127.0.0.1', port, maxRetriesPerRequest: null });
const connections = [];
const connect = () => {
  connections.push(connection());
  return connections.at(-1);
};

const queueOf = (name) => new Queue(name, { connection: connect() });

async function fill(queue, count) {
  for (let from = 0; from < count; from += BULK) {
    const size = Math.min(BULK, count - from);
    await queue.addBulk(Array.from({ length: size }, () => ({ name: 'noop', data: { n: 123456 } })));
  }
}

// A worker that does nothing, not yet running, and the promise of the end of `count` jobs: recorded, not only run.
async function workerOf(name, count, concurrency) {
  const worker = new Worker(name, async () => {}, { connection: connect(), concurrency, autorun: false });
  const ended = new Promise((resolve, reject) => {
    let completed = 0;
    worker.on('completed', () => ++completed === count && resolve());
    worker.on('failed', (_, error) => reject(error));
    worker.on('error', reject);
  });
  await worker.waitUntilReady();
  return { worker, ended };
}

async function drain(name, count, concurrency) {
  const { worker, ended } = await workerOf(name, count, concurrency);
  const started = performance.now();
  const running = worker.run();
  await ended;
  const seconds = (performance.now() - started) / 1000;
  await worker.close();
  await running;
  return seconds;
}

async function together(queue, count, concurrency) {
  const { worker, ended } = await workerOf(queue.name, count, concurrency);
  const started = performance.now();
  const running = worker.run();
  let left = count;
  const submitter = async () => {
    while (left-- > 0) await queue.add('noop', { n: 123456 });
  };
  await Promise.all(Array.from({ length: submitters }, submitter));
  await ended;
  const seconds = (performance.now() - started) / 1000;
  await worker.close();
  await running;
  return seconds;
}

// The first jobs of a process run uncompiled; they are not what is measured, and leave nothing behind.
async function warmUp() {
  const queue = queueOf('warm-up');
  await fill(queue, WARM_UP);
  await drain('warm-up', WARM_UP, workers);
  await queue.obliterate({ force: true });
}

const queue = queueOf('bench');
await queue.waitUntilReady();
let seconds;
if (step === 'fill') {
  const started = performance.now();
  await fill(queue, jobs);
  seconds = (performance.now() - started) / 1000;
} else if (step === 'drain') {
  await warmUp();
  seconds = await drain('bench', jobs, workers);
} else if (step === 'together') {
  await warmUp();
  seconds = await together(queue, jobs, workers);
} else {
  throw new Error(`no such step: ${step}`);
}
console.log(JSON.stringify({ seconds }));
for (const open of connections) open.disconnect();
process.exit(0);

// pg-boss, with the calls of its documentation: node pgboss.mjs STEP AMOUNT. The same steps and answers as apps/drive.py.
import { createRequire } from 'node:module'
import { openSync, writeSync, constants } from 'node:fs'

const { PgBoss } = createRequire(process.env.BENCH_NODE_MODULES + '/')('pg-boss')
const [step, amountText] = process.argv.slice(2)
const amount = Number(amountText)
const QUEUE = 'bench'
const PORTION = 500

const now = () => Number(process.hrtime.bigint()) / 1e9
const boss = new PgBoss({ connectionString: process.env.BENCH_DATABASE, useListenNotify: step === 'work', schedule: false })
boss.on('error', error => console.error(error))

const send = number => boss.send(QUEUE, { number })

async function sendMany (from, to) {
  for (let start = from; start < to; start += PORTION) {
    const jobs = []
    for (let number = start; number < Math.min(start + PORTION, to); number++) jobs.push({ data: { number } })
    await boss.insert(QUEUE, jobs)
  }
}

async function timed (work) {
  const warm = Math.floor(amount / 10)
  await work(0, warm)
  const began = now()
  await work(warm, warm + amount)
  return { seconds: now() - began, sent: warm + amount }
}

const steps = {
  prepare: () => boss.createQueue(QUEUE, { notify: true }),
  fill: () => sendMany(0, amount),
  async send () {
    for (let number = 0; number < amount; number++) await send(number)
  },
  publish: () => timed(async (from, to) => {
    for (let number = from; number < to; number++) await send(number)
  }),
  publish_bulk: () => timed(sendMany),
  async latency () {
    const sent = []
    for (let number = 0; number < amount; number++) {
      await new Promise(resolve => setTimeout(resolve, 20 + Math.random() * 25))
      sent.push(now())
      await send(number)
    }
    return { sent }
  },
  async work () {
    const file = openSync(process.env.BENCH_LEDGER, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT)
    const options = { batchSize: 100, burstWhenBatchFull: true }
    await boss.work(QUEUE, options, async jobs => {
      for (const job of jobs) {
        const entry = Buffer.alloc(16)
        entry.writeBigInt64LE(BigInt(job.data.number), 0)
        entry.writeBigInt64LE(process.hrtime.bigint(), 8)
        writeSync(file, entry)
      }
    })
    await new Promise(() => {})
  }
}

await boss.start()
const answer = await steps[step]()
console.log(JSON.stringify(typeof answer === 'object' && answer !== null ? answer : {}))
await boss.stop({ graceful: false })
process.exit(0)

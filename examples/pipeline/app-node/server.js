// The bot: writes a post now and then while it may, and says on /health how it is. Started by
// `pgrunbook guard exec -- node server.js`, so that it never runs on a schema that it does not fit.
//
// Environment: PORT, APP_ENV, APP_SCHEMA_VERSION, DATABASE_URL, REDIS_URL, REDIS_PREFIX, LIVE_POSTS, POST_EVERY_MS.
'use strict'

const http = require('node:http')
const { Cache } = require('./src/redis')
const { Flags } = require('./src/flags')
const { sql } = require('./src/sql')

const { PORT = '8080', APP_ENV, APP_SCHEMA_VERSION, DATABASE_URL, REDIS_URL, REDIS_PREFIX = '', LIVE_POSTS } = process.env
// Set by the guard; whoever starts this without one is told on /health.
const guard = process.env.PGRUNBOOK_GUARD_OUTCOME ?? 'unguarded'
const every = Number(process.env.POST_EVERY_MS ?? 5_000)

for (const name of ['APP_ENV', 'DATABASE_URL', 'REDIS_PREFIX']) {
  if (!process.env[name]) {
    console.error(`${name} is not set`)
    process.exit(2)
  }
}

const cache = new Cache(REDIS_URL, REDIS_PREFIX)
const flags = new Flags(DATABASE_URL, APP_ENV, every)
// When the last post was made by this process.
let posted = 0
const POST = `INSERT INTO public.posts (environment, body) VALUES (:'environment', 'hello') RETURNING id;`
const LAST = `SELECT max(id) FROM public.posts WHERE environment = :'environment';`

async function post() {
  if (!(await flags.posting(LIVE_POSTS)).on) return
  const [[id]] = await sql(DATABASE_URL, POST, { environment: APP_ENV })
  posted = Date.now()
  await cache.put('posts:last', id, 3_600)
}

// One after the other, whatever they take.
async function posts() {
  try {
    await post()
  } catch (error) {
    console.error(`not posted: ${error.message}`)
  }
  setTimeout(posts, every).unref()
}

async function health() {
  const posting = await flags.posting(LIVE_POSTS)
  const redis = await cache.health()
  let database = 'up'
  let last = await cache.get('posts:last')
  try {
    const [[stored]] = await sql(DATABASE_URL, LAST, { environment: APP_ENV })
    // Without the cache the database tells.
    last ??= stored || null
  } catch (error) {
    database = `down: ${error.message}`
  }
  const status = database !== 'up' ? 'down' : redis === 'up' && !flags.trouble ? 'ok' : 'degraded'
  const about = { app: 'bot', environment: APP_ENV, version: APP_SCHEMA_VERSION, guard, guarded: !['bypassed', 'unguarded'].includes(guard) }
  const posts = { last_post: last === null ? null : Number(last), posted_lately: Date.now() - posted < 10 * every }
  return { ...about, status, database, redis, posting, ...posts }
}

const server = http.createServer(async (request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(body) + '\n')
  }
  if (request.method !== 'GET' || request.url !== '/health') return answer(404, { error: 'there is /health' })
  try {
    const body = await health()
    // Degraded is no reason to be taken out of service: Redis is a cache.
    answer(body.status === 'down' ? 503 : 200, body)
  } catch (error) {
    answer(500, { error: error.message })
  }
})

server.listen(Number(PORT), '127.0.0.1', () => {
  console.log(`listening on ${PORT}, guard: ${guard}`)
  posts()
})

process.on('SIGTERM', () => {
  server.close(() => process.exit(0))
  server.closeIdleConnections()
})

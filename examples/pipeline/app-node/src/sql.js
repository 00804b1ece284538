// SQL by `psql`: Node has no PostgreSQL client of its own, and whoever operates this has psql.
'use strict'

const { spawn } = require('node:child_process')

// Arguments can be read by everybody on the machine, so the connection goes into the environment.
function environment(text) {
  const url = new URL(text)
  return {
    PATH: process.env.PATH,
    PGHOST: url.searchParams.get('host') ?? decodeURIComponent(url.hostname),
    PGPORT: url.searchParams.get('port') ?? (url.port || '5432'),
    PGUSER: decodeURIComponent(url.username),
    PGPASSWORD: decodeURIComponent(url.password) || process.env.PGPASSWORD || '',
    PGDATABASE: decodeURIComponent(url.pathname.slice(1)),
    PGSSLMODE: url.searchParams.get('sslmode') ?? 'prefer',
    PGSSLROOTCERT: process.env.PGSSLROOTCERT ?? '',
    PGCONNECT_TIMEOUT: '5',
    PGAPPNAME: 'pipeline-bot',
  }
}

/**
 * Runs statements and gives their rows, each a list of texts without tabs and line breaks. `values` are psql's variables: `:'name'` is one as a literal.
 * Rejects with what the server said, or after `timeout` milliseconds.
 */
function sql(url, statements, values = {}, timeout = 5_000) {
  const variables = Object.entries(values).flatMap(([name, value]) => ['-v', `${name}=${value}`])
  const options = ['-X', '-q', '-A', '-t', '-F', '\t', '-v', 'ON_ERROR_STOP=1', ...variables]
  return new Promise((resolve, reject) => {
    const child = spawn('psql', options, { env: environment(url), timeout })
    let out = ''
    let err = ''
    child.stdout.on('data', (data) => { out += data })
    child.stderr.on('data', (data) => { err += data })
    child.on('error', reject)
    child.on('close', (status) => {
      if (status === 0) {
        // An empty line is a row, of one value that is null or empty.
        const lines = out.split('\n').slice(0, -1)
        resolve(lines.map((line) => line.split('\t')))
      } else {
        reject(new Error(err.trim().split('\n')[0] || `psql ended with ${status ?? 'a signal'}`))
      }
    })
    child.stdin.on('error', () => {})
    child.stdin.end(statements)
  })
}

module.exports = { sql }

// Runs by-hand.sql in an environment, in one transaction, and prints it: `node scripts/by-hand.js staging`. What it prints is kept with
// the run, so that nobody has to remember what was done. Only for the last way of EMERGENCY.md.
'use strict'

const { readFileSync } = require('node:fs')
const { join } = require('node:path')
const { sql } = require('../app-node/src/sql')

const VARIABLES = { staging: 'STAGING_DATABASE_URL', production: 'PROD_DATABASE_URL' }

async function main() {
  const variable = VARIABLES[process.argv[2]]
  if (!variable || !process.env[variable]) {
    throw new Error('usage: node scripts/by-hand.js staging|production, with STAGING_DATABASE_URL or PROD_DATABASE_URL set')
  }
  const statements = readFileSync(join(__dirname, 'by-hand.sql'), 'utf8').replace(/^--.*$/gm, '').trim()
  if (statements === '') throw new Error('scripts/by-hand.sql has nothing but comments: nothing was touched')
  const rows = await sql(process.env[variable], `BEGIN;\n${statements}\n;\nCOMMIT;\n`, {}, 60_000)
  console.log(statements)
  for (const row of rows) console.log(`-> ${row.join(' | ')}`)
  console.log(`done in ${process.argv[2]}`)
}

main().catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})

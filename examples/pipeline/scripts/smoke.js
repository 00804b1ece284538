// Runs smoke.sql in an environment: `node scripts/smoke.js staging`. Exit 0 if it holds.
'use strict'

const { readFileSync } = require('node:fs')
const { join } = require('node:path')
const { sql } = require('../app-node/src/sql')

const VARIABLES = { staging: 'STAGING_DATABASE_URL', production: 'PROD_DATABASE_URL' }

async function main() {
  const variable = VARIABLES[process.argv[2]]
  if (!variable || !process.env[variable]) {
    throw new Error('usage: node scripts/smoke.js staging|production, with STAGING_DATABASE_URL or PROD_DATABASE_URL set')
  }
  await sql(process.env[variable], readFileSync(join(__dirname, 'smoke.sql'), 'utf8'), {}, 30_000)
  console.log(`smoke.sql holds in ${process.argv[2]}`)
}

main().catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})

// Flags as bot_config has them: one JSON object in the row `feature_flags` of the environment, read every few seconds.
'use strict'

const { sql } = require('./sql')

const READ = `SELECT config_value FROM public.bot_config
WHERE config_key = 'feature_flags' AND environment = :'environment';`

class Flags {
  #known = null
  #read = 0
  trouble = null

  constructor(url, environment, maxAge) {
    Object.assign(this, { url, environment, maxAge })
  }

  /** All flags; the last that are known where the database does not answer, and none if it never did. */
  async all() {
    if (Date.now() - this.#read < this.maxAge) return this.#known ?? {}
    try {
      const rows = await sql(this.url, READ, { environment: this.environment })
      if (rows.length !== 1) throw new Error(`bot_config has no feature_flags of ${this.environment}`)
      this.#known = JSON.parse(rows[0][0])
      this.trouble = null
    } catch (error) {
      this.trouble = error.message
    }
    this.#read = Date.now()
    return this.#known ?? {}
  }

  /**
   * Whether posts are made, and why. `false` in the database is the kill switch, against which no variable counts; the
   * variable LIVE_POSTS=false stops this process alone.
   */
  async posting(livePosts) {
    const flag = (await this.all()).autonomous_posting
    // Shares are for readers; the bot is on or off.
    const on = flag === true || (flag?.enabled === true && (flag.percentage ?? 100) === 100)
    if (!on) return { on, why: this.trouble ?? 'autonomous_posting is off' }
    return livePosts === 'false' ? { on: false, why: 'LIVE_POSTS is false' } : { on, why: 'autonomous_posting is on' }
  }
}

module.exports = { Flags }

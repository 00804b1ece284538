// The commands of Redis that are needed here (https://redis.io/docs/latest/develop/reference/protocol-spec/). Every key gets
// the environment's prefix, and a Redis that is down is told to the caller and stops nothing.
'use strict'

const net = require('node:net')

const encode = (words) =>
  `*${words.length}\r\n` + words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')

// One answer of the forms that PING, AUTH, SET and GET have, and what is left; nothing while it is not whole.
function decode(text) {
  const end = text.indexOf('\r\n')
  if (end < 0) return null
  const [kind, line] = [text[0], text.slice(1, end)]
  if (kind !== '$') return { value: kind === '-' ? new Error(line) : line, rest: text.slice(end + 2) }
  const length = Number(line)
  if (length < 0) return { value: null, rest: text.slice(end + 2) }
  const from = end + 2
  if (text.length < from + length + 2) return null
  return { value: text.slice(from, from + length), rest: text.slice(from + length + 2) }
}

/** Sends commands over a connection of their own; the answer to the last. Rejects on the first error. */
function ask(address, commands, timeout = 1_000) {
  const url = new URL(address)
  const words = [...commands]
  if (url.password) {
    words.unshift(['AUTH', decodeURIComponent(url.username) || 'default', decodeURIComponent(url.password)])
  }
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(url.port || 6379), url.hostname)
    let text = ''
    let left = words.length
    const end = (done, value) => {
      socket.destroy()
      done(value)
    }
    socket.setEncoding('latin1')
    socket.setTimeout(timeout, () => end(reject, new Error(`no answer within ${timeout} ms`)))
    socket.on('error', (error) => end(reject, error))
    socket.on('close', () => reject(new Error('the connection was closed')))
    socket.on('connect', () => socket.write(words.map(encode).join('')))
    socket.on('data', (data) => {
      text += data
      for (let answer = decode(text); answer; answer = decode(text)) {
        text = answer.rest
        if (answer.value instanceof Error) return end(reject, answer.value)
        left -= 1
        if (left === 0) return end(resolve, answer.value)
      }
    })
  })
}

/** A cache of one environment: keys without their prefix, and why it is of no use where it is not. */
class Cache {
  constructor(address, prefix) {
    this.address = address
    this.prefix = prefix
    this.trouble = address ? null : 'REDIS_URL is not set'
  }

  // Never rejects: the database has everything that is here.
  async #try(commands) {
    if (!this.address) return null
    try {
      const value = await ask(this.address, commands)
      this.trouble = null
      return value
    } catch (error) {
      this.trouble = error.message || error.code
      return null
    }
  }

  put(key, value, seconds) {
    return this.#try([['SET', this.prefix + key, String(value), 'EX', String(seconds)]])
  }

  get(key) {
    return this.#try([['GET', this.prefix + key]])
  }

  async health() {
    await this.#try([['PING']])
    return this.trouble ? `down: ${this.trouble}` : 'up'
  }
}

module.exports = { Cache }

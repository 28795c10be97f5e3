const ms = require('ms');
const debug = require('debug')('greeter');
const server = require('http').createServer((_, answer) => answer.end(`up for ${ms(process.uptime() * 1000)}\n`));
if (process.argv.includes('--check')) {
  debug('checked');
} else {
  server.listen(3000);
}

<?php
// phpredis: its session handler, without and with locks.
//
//     php sessions.php REDIS_URL...

error_reporting(E_ALL);
$count = 0;
$warnings = [];
set_error_handler(function ($level, $text) use (&$warnings) { $warnings[] = $text; return true; });

function same($what, $got, $wanted) {
  global $count;
  $count += 1;
  if ($got !== $wanted) {
    fwrite(STDERR, "$what: expected " . var_export($wanted, true) . ', got ' . var_export($got, true) . "\n");
    exit(1);
  }
}

function redis($url) {
  $redis = new Redis();
  $redis->connect(parse_url($url, PHP_URL_HOST), parse_url($url, PHP_URL_PORT));
  $redis->auth(parse_url($url, PHP_URL_PASS));
  return $redis;
}

// Begins or goes on with a session at a node.
function begin($url, $id) {
  $host = parse_url($url, PHP_URL_HOST) . ':' . parse_url($url, PHP_URL_PORT);
  session_save_path("tcp://$host?auth=" . parse_url($url, PHP_URL_PASS) . '&prefix=php:');
  session_id($id);
  return session_start();
}

foreach (['session.save_handler' => 'redis', 'session.use_cookies' => '0', 'session.cache_limiter' => '', 'session.gc_maxlifetime' => '600'] as $name => $value) {
  ini_set($name, $value);
}
[$one, $two, $three] = array_slice($argv, 1);
$other = redis($three);

same('begins', begin($one, 'first'), true);
$_SESSION['user'] = 'ada';
same('saved', session_write_close(), true);
same('goes on elsewhere', begin($two, 'first'), true);
same('as it was', $_SESSION, ['user' => 'ada']);
$_SESSION['user'] = 'grace';
same('another id', session_regenerate_id(true), true);
$id = session_id();
same('saved', session_write_close(), true);
same('its deadline', abs($other->ttl("php:$id") - 597) <= 3, true);
same('the old one is none', $other->exists('php:first'), 0);
same('under its new id', begin($one, $id), true);
same('as it was', $_SESSION, ['user' => 'grace']);
// While it is under way, the user logs out elsewhere.
same('logged out', $other->del("php:$id"), 1);
$_SESSION['user'] = 'late';
same('no warnings so far', $warnings, []);
session_write_close();
same('a late save', count(preg_grep('/Failed to write session data/', $warnings)), 1);
$warnings = [];
same('stays out', $other->get("php:$id"), false);
same('nor elsewhere', begin($two, $id), true);
same('begins anew', $_SESSION, []);
$_SESSION['user'] = 'new';
same('saved', session_write_close(), true);
same('destroyed', begin($one, $id) && session_destroy(), true);
same('gone', $other->exists("php:$id"), 0);

// With locks: one is taken by SET NX, and given back by a script that compares and deletes.
ini_set('redis.session.locking_enabled', '1');
ini_set('redis.session.lock_expire', '60');
same('begins with a lock', begin($one, 'locked'), true);
same('which is there', $other->exists('php:locked_LOCK'), 1);
$_SESSION['user'] = 'ada';
session_write_close();
same('saved', is_string($other->get('php:locked')), true);
same('its lock is given back', $other->exists('php:locked_LOCK'), 0);
same('goes on elsewhere', begin($two, 'locked') && $_SESSION === ['user' => 'ada'] && session_write_close(), true);
same('no warnings', $warnings, []);
$redis = new ReflectionExtension('redis');
printf("%-26s %d answers as they should be\n", 'phpredis ' . $redis->getVersion(), $count);

/* Fetching, against a real server on loopback that misbehaves in every way we know. */
#include "tools/web/address.h"
#include "tools/web/get.h"

#include "tests/tools/server.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static test_server server;

static weft_status get(const char *url, bool allow_private, bool trust_first, get_reply *out,
                       weft_error *err)
{
    get_request request = {.url = url,
                           .timeout_ms = 20000,
                           .max_bytes = 1 << 20,
                           .allow_private = allow_private,
                           .trust_first = trust_first};
    return web_get(&request, out, err);
}

static char *url_of(const char *path)
{
    static char url[1024];
    snprintf(url, sizeof url, "%s%s", server.base, path);
    return url;
}

/* Fetches with private addresses allowed; fails the test if it cannot. */
static get_reply fetch(const char *path)
{
    get_reply reply;
    weft_error err;
    if (get(url_of(path), true, false, &reply, &err)) fail_msg("%s: %s", path, err.message);
    return reply;
}

static void addresses_are_classed(void **state)
{
    static const struct {
        const char *address;
        bool is_public;
    } table[] = {
        {"8.8.8.8", true},
        {"1.1.1.1", true},
        {"93.184.216.34", true},
        {"172.15.255.255", true},
        {"172.32.0.0", true},
        {"100.63.255.255", true},
        {"100.128.0.0", true},
        {"198.17.255.255", true},
        {"198.20.0.0", true},
        {"223.255.255.255", true},
        {"0.0.0.0", false},
        {"0.1.2.3", false},
        {"10.0.0.1", false},
        {"10.255.255.255", false},
        {"100.64.0.1", false},
        {"100.127.255.255", false},
        {"127.0.0.1", false},
        {"127.255.255.254", false},
        {"169.254.169.254", false},
        {"172.16.0.1", false},
        {"172.31.255.255", false},
        {"192.0.0.8", false},
        {"192.0.2.1", false},
        {"192.168.1.1", false},
        {"192.88.99.1", false},
        {"198.18.0.1", false},
        {"198.19.255.255", false},
        {"198.51.100.7", false},
        {"203.0.113.9", false},
        {"224.0.0.1", false},
        {"239.255.255.255", false},
        {"240.0.0.1", false},
        {"255.255.255.255", false},
        {"2606:4700:4700::1111", true},
        {"2a00:1450::1", true},
        {"2002:808:808::1", true},
        {"::ffff:8.8.8.8", true},
        {"64:ff9b::808:808", true},
        {"::", false},
        {"::1", false},
        {"::ffff:127.0.0.1", false},
        {"::ffff:10.0.0.1", false},
        {"::ffff:169.254.169.254", false},
        {"64:ff9b::7f00:1", false},
        {"64:ff9b::a9fe:a9fe", false},
        {"64:ff9b:1::1", false},
        {"2002:7f00:1::", false},
        {"2002:c0a8:101::1", false},
        {"2001::1", false},
        {"2001:db8::1", false},
        {"3fff::1", false},
        {"fc00::1", false},
        {"fd00:ec2::254", false},
        {"fe80::1", false},
        {"fec0::1", false},
        {"ff02::1", false},
        {"100::1", false},
        {"5f00::1", false},
        {"::127.0.0.1", false},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct sockaddr_in in4 = {.sin_family = AF_INET};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        bool four = inet_pton(AF_INET, table[i].address, &in4.sin_addr) == 1, is_public;
        if (!four) assert_int_equal(inet_pton(AF_INET6, table[i].address, &in6.sin6_addr), 1);
        is_public = four ? address_is_public((struct sockaddr *)&in4, sizeof in4)
                         : address_is_public((struct sockaddr *)&in6, sizeof in6);
        if (is_public != table[i].is_public)
            fail_msg("%s: %s", table[i].address, is_public ? "public" : "not public");
    }
    struct sockaddr local = {.sa_family = AF_UNIX};
    assert_false(address_is_public(&local, sizeof local));
}

static void private_addresses_are_refused_however_spelled(void **state)
{
    static const char *const hosts[] = {
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "127.1",
        "0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "[fe80::1]",
        "[2002:7f00:1::]",
    };
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char url[128];
        get_reply reply;
        weft_error err;
        snprintf(url, sizeof url, "http://%s:%d/page", hosts[i], server.port);
        if (get(url, false, false, &reply, &err) != WEFT_E_NETWORK) fail_msg("%s was fetched", url);
        if (!strstr(err.message, "private address")) fail_msg("%s: %s", url, err.message);
    }
}

static void redirects_pass_the_same_door(void **state)
{
    get_reply reply;
    weft_error err;
    char target[512];
    /* the first address is trusted, what it redirects to is not: even the very same */
    assert_int_equal(get(url_of("/page"), false, true, &reply, &err), WEFT_OK);
    get_reply_free(&reply);
    static const char *const paths[] = {"/to-page", "/to-metadata", "/to-mapped"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (get(url_of(paths[i]), false, true, &reply, &err) != WEFT_E_NETWORK)
            fail_msg("%s was followed", paths[i]);
        if (!strstr(err.message, "private address")) fail_msg("%s: %s", paths[i], err.message);
    }
    snprintf(target, sizeof target, "/to?http://localhost:%d/page", server.port);
    assert_int_equal(get(url_of(target), false, true, &reply, &err), WEFT_E_NETWORK);
    assert_non_null(strstr(err.message, "private address"));
    /* schemes and users are refused even where every address is allowed */
    static const char *const bad[] = {"/to-file", "/to-ftp", "/to-user", "/to-gopher"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (get(url_of(bad[i]), true, false, &reply, &err) != WEFT_E_NETWORK)
            fail_msg("%s was followed", bad[i]);
}

static void redirects_are_counted(void **state)
{
    get_reply reply = fetch("/hops/5");
    weft_error err;
    assert_string_equal(weft_buffer_str(&reply.body), "just text\nsecond line\n");
    assert_non_null(strstr(reply.url, "/plain"));
    get_reply_free(&reply);
    assert_int_equal(get(url_of("/hops/6"), true, false, &reply, &err), WEFT_E_NETWORK);
    assert_non_null(strstr(err.message, "redirects more than 5 times"));
    assert_int_equal(get(url_of("/loop"), true, false, &reply, &err), WEFT_E_NETWORK);
    assert_non_null(strstr(err.message, "redirects more than 5 times"));
}

static void urls_are_checked(void **state)
{
    static const char *const bad[] = {
        "",
        "nonsense",
        "http://",
        "http:///x",
        "file:///etc/passwd",
        "ftp://example.org/",
        "gopher://example.org/",
        "dict://x/",
        "javascript:alert(1)",
        "data:text/plain,x",
        "http://user@127.0.0.1/",
        "http://u:p@example.org/",
        "http://exa mple.org/",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "smb://x/y",
        "ws://x/",
        "http://\x01/",
        "//example.org/",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        get_reply reply;
        weft_error err;
        if (get(bad[i], true, false, &reply, &err) != WEFT_E_NETWORK)
            fail_msg("%s was fetched", bad[i]);
        assert_true(err.message[0] != '\0');
    }
    char url[128]; /* this one would be answered */
    get_reply reply;
    weft_error err;
    snprintf(url, sizeof url, "http://user:word@127.0.0.1:%d/page", server.port);
    assert_int_equal(get(url, true, false, &reply, &err), WEFT_E_NETWORK);
    assert_non_null(strstr(err.message, "a URL with a user name is not fetched"));
}

static void sizes_are_bounded(void **state)
{
    get_reply reply = fetch("/big");
    assert_true(reply.cut);
    assert_int_equal(reply.body.size, 1 << 20);
    get_reply_free(&reply);
    reply = fetch("/bomb"); /* 80 MiB in 80 KiB: counted after unpacking */
    assert_true(reply.cut);
    assert_int_equal(reply.body.size, 1 << 20);
    get_reply_free(&reply);
    reply = fetch("/endless"); /* what is beyond is not even read */
    assert_true(reply.cut);
    get_reply_free(&reply);
    reply = fetch("/plain");
    assert_false(reply.cut);
    get_reply_free(&reply);
}

static void slow_servers_are_left(void **state)
{
    static const char *const paths[] = {"/silent", "/drip"};
    for (size_t i = 0; i < 2; i++) {
        get_reply reply;
        weft_error err;
        get_request request = {.url = url_of(paths[i]),
                               .timeout_ms = 700,
                               .max_bytes = 1 << 20,
                               .allow_private = true};
        assert_int_equal(web_get(&request, &reply, &err), WEFT_E_NETWORK);
        assert_non_null(strstr(err.message, "took longer than 1 s"));
    }
}

static void types_and_statuses(void **state)
{
    weft_error err;
    get_reply reply = fetch("/missing");
    assert_int_equal(reply.http_status, 404);
    get_reply_free(&reply);
    reply = fetch("/json");
    assert_string_equal(reply.content_type, "application/json");
    get_reply_free(&reply);
    reply = fetch("/untyped");
    assert_string_equal(reply.content_type, "");
    get_reply_free(&reply);
    static const char *const refused[] = {"/pdf", "/image"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(get(url_of(refused[i]), true, false, &reply, &err), WEFT_E_NETWORK);
        assert_non_null(strstr(err.message, "is no text"));
    }
    assert_int_equal(get("http://127.0.0.1:1/", true, false, &reply, &err), WEFT_E_NETWORK);
    assert_non_null(strstr(err.message, "does not answer"));
}

static void nothing_of_ours_is_sent(void **state)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* must be ignored: the request would fail */
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    get_reply reply = fetch("/agent");
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    assert_non_null(strstr(weft_buffer_str(&reply.body), "User-Agent: weft/"));
    assert_null(strstr(weft_buffer_str(&reply.body), "Cookie"));
    assert_null(strstr(weft_buffer_str(&reply.body), "Authorization"));
    assert_null(strstr(weft_buffer_str(&reply.body), "Referer"));
    get_reply_free(&reply);
}

static int start(void **state)
{
    return server_start(&server) ? 0 : -1;
}

static int stop(void **state)
{
    server_stop(&server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_classed),
        cmocka_unit_test(private_addresses_are_refused_however_spelled),
        cmocka_unit_test(redirects_pass_the_same_door),
        cmocka_unit_test(redirects_are_counted),
        cmocka_unit_test(urls_are_checked),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(slow_servers_are_left),
        cmocka_unit_test(types_and_statuses),
        cmocka_unit_test(nothing_of_ours_is_sent),
    };
    return cmocka_run_group_tests(tests, start, stop);
}

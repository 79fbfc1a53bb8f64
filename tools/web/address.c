/* Address classes. For IPv4 a list of what is refused; for IPv6 only global unicast (2000::/3) is
 * let through, so that ranges assigned later are refused until someone looks at them. */
#include "tools/web/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t network;
    int bits;
} refused4[] = {
    {0x00000000, 8},  /* 0.0.0.0/8: this host */
    {0x0a000000, 8},  /* 10.0.0.0/8: private */
    {0x64400000, 10}, /* 100.64.0.0/10: carriers' shared space */
    {0x7f000000, 8},  /* 127.0.0.0/8: loopback */
    {0xa9fe0000, 16}, /* 169.254.0.0/16: link-local, cloud metadata */
    {0xac100000, 12}, /* 172.16.0.0/12: private */
    {0xc0000000, 24}, /* 192.0.0.0/24: protocol assignments */
    {0xc0000200, 24}, /* 192.0.2.0/24: documentation */
    {0xc0586300, 24}, /* 192.88.99.0/24: former 6to4 relays */
    {0xc0a80000, 16}, /* 192.168.0.0/16: private */
    {0xc6120000, 15}, /* 198.18.0.0/15: benchmarks */
    {0xc6336400, 24}, /* 198.51.100.0/24: documentation */
    {0xcb007100, 24}, /* 203.0.113.0/24: documentation */
    {0xe0000000, 4},  /* 224.0.0.0/4: multicast */
    {0xf0000000, 4},  /* 240.0.0.0/4: reserved, broadcast */
};

static bool is_public4(uint32_t address)
{
    for (size_t i = 0; i < sizeof refused4 / sizeof *refused4; i++)
        if ((address ^ refused4[i].network) >> (32 - refused4[i].bits) == 0) return false;
    return true;
}

static uint32_t word(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool is_public6(const uint8_t a[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0) return is_public4(word(a + 12));
    if (a[0] >> 5 != 1) return false;                                 /* not 2000::/3 */
    if (a[0] == 0x20 && a[1] == 0x02) return is_public4(word(a + 2)); /* 2002::/16: 6to4 */
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 0x02) return false; /* 2001::/23: Teredo and kin */
    if (word(a) == 0x20010db8) return false; /* 2001:db8::/32: documentation */
    if (a[0] == 0x3f && a[1] == 0xff && a[2] < 0x10) return false; /* 3fff::/20: documentation */
    return true;
}

bool address_is_public(const struct sockaddr *address, size_t size)
{
    if (address->sa_family == AF_INET && size >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return is_public4(ntohl(in.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6 && size >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in;
        memcpy(&in, address, sizeof in);
        return is_public6(in.sin6_addr.s6_addr);
    }
    return false;
}

void address_text(const struct sockaddr *address, size_t size, char *out)
{
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    const char *text = NULL;
    if (address->sa_family == AF_INET && size >= sizeof in4) {
        memcpy(&in4, address, sizeof in4);
        text = inet_ntop(AF_INET, &in4.sin_addr, out, ADDRESS_TEXT_BYTES);
    } else if (address->sa_family == AF_INET6 && size >= sizeof in6) {
        memcpy(&in6, address, sizeof in6);
        text = inet_ntop(AF_INET6, &in6.sin6_addr, out, ADDRESS_TEXT_BYTES);
    }
    if (!text) snprintf(out, ADDRESS_TEXT_BYTES, "?");
}

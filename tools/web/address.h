/* Which addresses web_fetch may connect to. */
#ifndef WEFT_TOOLS_ADDRESS_H
#define WEFT_TOOLS_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

enum { ADDRESS_TEXT_BYTES = 64 };

/* True for addresses of the public internet. Loopback, private, link-local (where clouds answer
 * with credentials), shared, documentation, multicast and reserved ranges are not, nor any IPv6
 * address that carries such an IPv4 one (mapped, NAT64, 6to4). Any other family: false. Source:
 * IANA special-purpose address registries (RFC 6890). */
bool address_is_public(const struct sockaddr *address, size_t size);

/* "127.0.0.1" or "::1"; "?" for other families. out holds ADDRESS_TEXT_BYTES. */
void address_text(const struct sockaddr *address, size_t size, char *out);

#endif

#include <string.h>

struct frame {
    unsigned char length;
    unsigned char payload[32];
};

/* Takes the payload out of a packet: its first byte is the payload's length, the payload follows. Packets
 * with more than 32 bytes of payload, or with fewer bytes than they say, are refused by -1; otherwise the
 * result is 0. */
int store_payload(struct frame *frame, const unsigned char *packet, int size)
{
    int length = size > 0 ? packet[0] : 0;
    if (size < length + 1)
        return -1;

#include "driver.h"

struct frame {
    unsigned char length;
    unsigned char payload[32];
};

int store_payload(struct frame *frame, const unsigned char *packet, int size);

int main(int argc, char **argv)
{
    int said = atoi(argv[1]), present = atoi(argv[2]);
    unsigned char *packet = exact(1 + present);
    struct frame *frame = exact(sizeof *frame);
    memset(packet, 'p', 1 + present);
    packet[0] = said;
    frame->length = 0;
    int status = store_payload(frame, packet, 1 + present);
    printf("%d %d %.*s\n", status, frame->length, status == 0 ? frame->length : 0, frame->payload);
    return 0;
}

#include "driver.h"

uint16_t packet_trailer(const uint8_t *packet, size_t size);

int main(int argc, char **argv)
{
    size_t size = strlen(argv[1]);
    uint8_t *packet = exact(size);
    memcpy(packet, argv[1], size);
    printf("%04x\n", packet_trailer(packet, size));
    return 0;
}

#include <stddef.h>
#include <stdint.h>

/* The check value of a packet: its last two bytes, the higher one first. 0 for a packet that is too short for
 * it. */
uint16_t packet_trailer(const uint8_t *packet, size_t size)
{

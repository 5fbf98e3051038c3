#include "driver.h"

int record_name(const unsigned char *record, size_t size, char *out);

int main(int argc, char **argv)
{
    size_t present = strlen(argv[2]);
    unsigned char *record = exact(1 + present);
    char *out = exact(256);
    record[0] = atoi(argv[1]);
    memcpy(record + 1, argv[2], present);
    int length = record_name(record, 1 + present, out);
    printf("%d %s\n", length, length < 0 ? "" : out);
    return 0;
}

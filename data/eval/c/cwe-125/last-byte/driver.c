#include "driver.h"

int last_byte(const unsigned char *message, size_t length);

int main(int argc, char **argv)
{
    size_t length = strlen(argv[1]);
    unsigned char *message = exact(length);
    memcpy(message, argv[1], length);
    printf("%d\n", last_byte(message, length));
    return 0;
}

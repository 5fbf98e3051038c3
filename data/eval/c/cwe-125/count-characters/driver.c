#include "driver.h"

size_t count_characters(const unsigned char *text, size_t size);

int main(int argc, char **argv)
{
    size_t size = strlen(argv[1]) - atoi(argv[2]);
    unsigned char *text = exact(size);
    memcpy(text, argv[1], size);
    printf("%zu\n", count_characters(text, size));
    return 0;
}

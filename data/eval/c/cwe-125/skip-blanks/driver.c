#include "driver.h"

size_t skip_blanks(const char *text, size_t length, size_t position);

int main(int argc, char **argv)
{
    size_t length = strlen(argv[1]);
    char *text = exact(length);
    memcpy(text, argv[1], length);
    printf("%zu\n", skip_blanks(text, length, atoi(argv[2])));
    return 0;
}

#include "driver.h"

char *strip_prefix(char *text, const char *prefix);

int main(int argc, char **argv)
{
    char *result = strip_prefix(exact_string(argv[1]), argv[2]);
    puts(result ? result : "NULL");
    if (argc > 3)
        free(result);
    return 0;
}

#include "driver.h"

int parse_count(const char *text);

int main(int argc, char **argv)
{
    printf("%d\n", parse_count(argv[1]));
    return 0;
}

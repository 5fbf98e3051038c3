#include "driver.h"

char *copy_middle(const char *text, size_t offset, size_t length);

int main(int argc, char **argv)
{
    char *middle = copy_middle(exact_string(argv[1]), atoi(argv[2]), atoi(argv[3]));
    printf("[%s]\n", middle ? middle : "NULL");
    return 0;
}

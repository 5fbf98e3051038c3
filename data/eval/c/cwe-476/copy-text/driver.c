#include "driver.h"

char *copy_text(const char *text);

int main(int argc, char **argv)
{
    fail_allocation(atoi(argv[1]));
    char *copy = copy_text(argv[2]);
    puts(copy ? copy : "NULL");
    return 0;
}
